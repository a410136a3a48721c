/**
 * The two usual ways to process each order once, as teams write them. Each works as long as nobody races and nobody
 * dies.
 */
/** Where a tracker keeps what it knows. */
export interface KeyStore {
  readonly has: (key: string) => Promise<boolean>
  readonly add: (key: string) => Promise<void>
  /** Adds the key, and answers true, unless it is there: one atomic step. */
  readonly addIfAbsent: (key: string) => Promise<boolean>
  readonly remove: (key: string) => Promise<void>
}

/** Runs the work for an order unless it was done. */
export type Track = (orderId: string, work: () => Promise<void>) => Promise<void>

/** In this process's memory. */
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
