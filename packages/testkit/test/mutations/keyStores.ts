import { Protocol } from "@tidemark/core"
import { Clock, Effect } from "effect"
import type { Mutation } from "../referenceStore.ts"
import { at, failure, onKeys, shifted } from "./shared.ts"

const normalised = (normalise: (name: string) => string): Mutation =>
  onKeys((good) => ({
    claim: (namespace, items, terms) =>
      good.claim(
        namespace,
        items.map((item) => ({ ...item, key: normalise(item.key) })),
        terms
      ),
    complete: (claim, items, retention) =>
      good.complete(
        claim,
        items.map((item) => ({ ...item, key: normalise(item.key) })),
        retention
      ),
    lookup: (namespace, keys) => good.lookup(namespace, keys.map(normalise))
  }))

const changedClaim = (
  change: (
    answer: Protocol.KeyClaimAnswer,
    items: ReadonlyArray<Protocol.KeyItem>,
    index: number
  ) => Protocol.KeyClaimAnswer
): Mutation =>
  onKeys((good) => ({
    claim: (namespace, items, terms) =>
      Effect.map(good.claim(namespace, items, terms), (answers) =>
        answers?.map((answer, index) => change(answer, items, index))
      )
  }))

/** Stores of keys that each break the contract in one way. */
export const badKeyStores: Readonly<Record<string, Mutation>> = {
  "looks first, and then claims": onKeys((good, data) => ({
    claim: (namespace, items, terms) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const free = items.filter(({ key }) => data.keys.lookup(namespace, key, now)._tag === "Unknown")
        // whoever claims meanwhile is overlooked
        yield* Effect.yieldNow
        for (const { key } of free) {
          const entry = data.table.find(namespace, key)
          const holder = entry === -1 ? undefined : data.table.claimOf(entry)
          if (holder !== undefined && holder.claimId !== terms.claimId) data.keys.forget(namespace, key)
        }
        return yield* good.claim(namespace, items, terms)
      })
  })),
  "grants what is held": onKeys((good, data) => ({
    claim: (namespace, items, terms) =>
      Effect.suspend(() => {
        for (const { key } of items) {
          const entry = data.table.find(namespace, key)
          const holder = entry === -1 ? undefined : data.table.claimOf(entry)
          if (holder !== undefined && holder.claimId !== terms.claimId) data.keys.forget(namespace, key)
        }
        return good.claim(namespace, items, terms)
      })
  })),
  "grants equal keys twice": changedClaim((answer, items, index) => {
    const first = items.findIndex(({ key }) => key === items[index].key)
    return answer._tag === "InFlight" && first < index
      ? { _tag: "Claimed", token: answer.until * 1_000, until: answer.until }
      : answer
  }),
  "grants what is completed": onKeys((good, data) => ({
    claim: (namespace, items, terms) =>
      Effect.suspend(() => {
        for (const { key } of items) {
          const entry = data.table.find(namespace, key)
          if (entry !== -1 && data.table.claimOf(entry) === undefined) data.keys.forget(namespace, key)
        }
        return good.claim(namespace, items, terms)
      })
  })),
  "prolongs the lease when asked again": onKeys((good) => ({
    claim: (namespace, items, terms) =>
      Effect.tap(good.claim(namespace, items, terms), () =>
        good.renew([{ namespace, claimId: terms.claimId, leaseMillis: terms.leaseMillis }])
      )
  })),
  "gives the same token twice": onKeys((good) => ({
    claim: (namespace, items, terms) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const answers = yield* good.claim(namespace, items, terms)
        return answers?.map((answer) =>
          answer._tag === "Claimed" ? { ...answer, token: now * 1_000 } : answer
        )
      })
  })),
  "gives another token when asked again": onKeys((good) => {
    let more = 0
    return {
      claim: (namespace, items, terms) =>
        Effect.map(good.claim(namespace, items, terms), (answers) => {
          more += 1
          return answers?.map((answer) =>
            answer._tag === "Claimed" ? { ...answer, token: answer.token + more } : answer
          )
        })
    }
  }),
  "forgets a completion": onKeys((good) => ({
    complete: (claim, items, retention) =>
      Effect.gen(function* () {
        const answers = yield* good.complete(claim, items.slice(1), retention)
        return items.length === 1 ? yield* good.complete(claim, items, retention) : ["Completed", ...answers]
      })
  })),
  "accepts a complete after the claim was lost": onKeys((good) => ({
    complete: (claim, items, retention) =>
      Effect.map(good.complete(claim, items, retention), (answers) =>
        answers.map((answer) => (answer === "LeaseLost" ? "Completed" : answer))
      )
  })),
  "spoils a batch for one lost key": onKeys((good) => ({
    complete: (claim, items, retention) =>
      Effect.map(good.complete(claim, items, retention), (answers) =>
        answers.includes("LeaseLost") ? answers.map(() => "LeaseLost" as const) : answers
      )
  })),
  "spoils a batch for one bad key": onKeys((good) => ({
    claim: (namespace, items, terms) =>
      new Set(items.map(({ key }) => key)).size < items.length
        ? Effect.fail(failure("claim"))
        : good.claim(namespace, items, terms)
  })),
  "evicts a live claim": onKeys((good, data) => {
    const claims: Array<[string, string]> = []
    return {
      claim: (namespace, items, terms) =>
        Effect.suspend(() => {
          claims.push([namespace, items[0]?.key ?? ""])
          if (claims.length % 97 === 0) {
            for (const [space, key] of claims.splice(0, 96)) {
              const entry = data.table.find(space, key)
              if (entry !== -1 && data.table.claimOf(entry) !== undefined) data.keys.forget(space, key)
            }
          }
          return good.claim(namespace, items, terms)
        })
    }
  }),
  "takes over all of an expired claim": onKeys((good, data) => ({
    claim: (namespace, items, terms) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        for (const { key } of items) {
          const entry = data.table.find(namespace, key)
          const holder = entry === -1 ? undefined : data.table.claimOf(entry)
          if (holder !== undefined && holder.until <= now && holder.claimId !== terms.claimId)
            data.keys.release(holder.claimId)
        }
        return good.claim(namespace, items, terms)
      })
  })),
  "answers in another order": onKeys((good) => ({
    lookup: (namespace, keys) => Effect.map(good.lookup(namespace, keys), (answers) => answers.toReversed())
  })),
  "answers renewals in another order": onKeys((good) => ({
    renew: (claims) => Effect.map(good.renew(claims), (answers) => answers.toReversed())
  })),
  "remembers a millisecond too long": onKeys((good) => ({
    complete: (claim, items, retention) => good.complete(claim, items, retention + 1)
  })),
  "remembers a millisecond too short": onKeys((good) => ({
    complete: (claim, items, retention) => good.complete(claim, items, Math.max(0.5, retention - 1))
  })),
  "holds a millisecond too long": onKeys((good) => ({
    claim: (namespace, items, terms) => shifted(-1, good.claim(namespace, items, terms))
  })),
  "loses empty results": onKeys((good) => ({
    complete: (claim, items, retention) =>
      good.complete(
        claim,
        items.map((item) => ({ ...item, result: item.result || undefined })),
        retention
      )
  })),
  "overwrites a result": onKeys((good, data) => ({
    complete: (claim, items, retention) =>
      Effect.tap(good.complete(claim, items, retention), (answers) =>
        at((now) => {
          answers.forEach((answer, index) => {
            const entry = data.table.find(claim.namespace, items[index].key)
            if (answer === "AlreadyCompleted")
              data.table.complete(entry, now + retention, items[index].result)
          })
        })
      )
  })),
  "does not compare payloads": onKeys((good) => ({
    claim: (namespace, items, terms) =>
      good.claim(
        namespace,
        items.map(({ key }) => ({ key })),
        terms
      )
  })),
  "keeps a payload's fingerprint for ever": onKeys((good) => {
    const first = new Map<string, string | undefined>()
    return {
      claim: (namespace, items, terms) =>
        Effect.map(good.claim(namespace, items, terms), (answers) =>
          answers?.map((answer, index) => {
            const { fingerprint, key } = items[index]
            const name = JSON.stringify([namespace, key])
            const stored = first.get(name)
            if (stored !== undefined && fingerprint !== undefined && stored !== fingerprint)
              return { _tag: "Mismatch" as const, fingerprint: stored }
            first.set(name, stored ?? fingerprint)
            return answer
          })
        )
    }
  }),
  "takes a claim id for other keys": onKeys((good) => ({
    claim: (namespace, items, terms) =>
      Effect.flatMap(good.claim(namespace, items, terms), (answers) =>
        answers === undefined
          ? good.claim(namespace, items, { ...terms, claimId: `${terms.claimId}-other` })
          : Effect.succeed(answers)
      )
  })),
  "gives back what is completed": onKeys((good, data) => ({
    release: (claim, keys) =>
      Effect.andThen(
        Effect.sync(() => {
          for (const key of keys ?? []) {
            const entry = data.table.find(claim.namespace, key)
            if (entry !== -1 && data.table.claimOf(entry) === undefined) data.table.remove(entry)
          }
        }),
        good.release(claim, keys)
      )
  })),
  "gives back what another holds": onKeys((good, data) => ({
    release: (claim, keys) =>
      Effect.andThen(
        Effect.sync(() => {
          for (const key of keys ?? []) {
            const entry = data.table.find(claim.namespace, key)
            if (entry !== -1 && data.table.claimOf(entry) !== undefined)
              data.keys.forget(claim.namespace, key)
          }
        }),
        good.release(claim, keys)
      )
  })),
  "does not revive": onKeys((good, data) => ({
    renew: (claims) =>
      Effect.map(Clock.currentTimeMillis, (now) =>
        claims.map(({ claimId, leaseMillis }) => {
          const until = data.keys.renew(claimId, 0.001, now)
          return until === undefined || until <= now + 0.001
            ? undefined
            : data.keys.renew(claimId, leaseMillis, now)
        })
      ),
    claim: good.claim
  })),
  "normalises keys": normalised((key) => key.normalize("NFC")),
  "trims keys": normalised((key) => key.trim() || key),
  "ends keys at a NUL": normalised((key) => key.split("\u0000")[0] || key),
  "joins namespace and key": onKeys((good) => {
    const joined = (namespace: string, key: string): string => `${namespace}:${key}`
    return {
      claim: (namespace, items, terms) =>
        good.claim(
          "n",
          items.map((item) => ({ ...item, key: joined(namespace, item.key) })),
          terms
        ),
      complete: (claim, items, retention) =>
        good.complete(
          { ...claim, namespace: "n" },
          items.map((item) => ({ ...item, key: joined(claim.namespace, item.key) })),
          retention
        ),
      release: (claim, keys) =>
        good.release(
          claim,
          keys?.map((key) => joined(claim.namespace, key))
        ),
      lookup: (namespace, keys) =>
        good.lookup(
          "n",
          keys.map((key) => joined(namespace, key))
        ),
      forget: (namespace, keys) =>
        good.forget(
          "n",
          keys.map((key) => joined(namespace, key))
        )
    }
  }),
  "counts what it did not know": onKeys((good) => ({
    forget: (namespace, keys) => Effect.map(good.forget(namespace, keys), () => keys.length)
  })),
  "loses claims on a restart": (good, data) => {
    data.keys = new Protocol.KeyState(data.table)
    return good
  },
  "loses all on a restart": (good, data) => {
    data.keys = new Protocol.KeyState(new Protocol.MapKeyTable())
    return good
  }
}
