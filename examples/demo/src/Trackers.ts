/**
 * The two usual ways to process each order once, as teams write them. Each works as long as nobody races and nobody
 * dies.
 */
import type { Life } from "./Life.ts"

/** Where a tracker keeps what it knows: asked as one asks Redis, kept here in memory. */
export interface KeyStore {
  readonly has: (key: string) => Promise<boolean>
  readonly add: (key: string) => Promise<void>
  /** As `SET key value NX` does: sets the key, and answers true, unless it was set before. */
  readonly addIfAbsent: (key: string) => Promise<boolean>
  readonly remove: (key: string) => Promise<void>
}

/** Runs the work for an order unless it was done. */
export type Track = (orderId: string, work: () => Promise<void>) => Promise<void>

export const makeKeyStore = (): KeyStore => {
  const keys = new Set<string>()
  return {
    has: async (key) => keys.has(key),
    add: async (key) => {
      keys.add(key)
    },
    addIfAbsent: async (key) => {
      if (keys.has(key)) return false
      keys.add(key)
      return true
    },
    remove: async (key) => {
      keys.delete(key)
    }
  }
}

/** The store as a mortal consumer has it: after the consumer's end it never answers again. */
export const mortalKeyStore = (store: KeyStore, life: Life): KeyStore => ({
  has: (key) => life.call(() => store.has(key)),
  add: (key) => life.call(() => store.add(key)),
  addIfAbsent: (key) => life.call(() => store.addIfAbsent(key)),
  remove: (key) => life.call(() => store.remove(key))
})

/** Check, process, then add. Two that check before either adds both process. */
export const checkProcessAdd =
  (store: KeyStore): Track =>
  async (orderId, work) => {
    if (await store.has(orderId)) return
    await work()
    await store.add(orderId)
  }

/** Claim, then process. Whoever dies in between keeps the claim for ever, and nobody processes the order. */
export const claimFirst =
  (store: KeyStore): Track =>
  async (orderId, work) => {
    if (!(await store.addIfAbsent(orderId))) return
    try {
      await work()
    } catch (error) {
      await store.remove(orderId)
      throw error
    }
  }
