import { it } from "@effect/vitest"
import { OffsetRanges } from "@tidemark/core"
import { startRedisCluster } from "@tidemark/test-servers"
import { describeWithOwnRedisCluster } from "@tidemark/test-servers/vitest"
import { Effect } from "effect"
import { Redis } from "ioredis"
import { expect } from "vitest"
import { openStore, termsOf } from "./harness.ts"
import { nodeOf } from "./store.ts"

await describeWithOwnRedisCluster("a slot that moves to another node of the cluster", () => {
  it.live("grants nothing twice on its way, says Moved meanwhile, and then has all", () =>
    Effect.gen(function* () {
      const cluster = yield* Effect.acquireRelease(
        Effect.promise(() => startRedisCluster()),
        ({ stop }) => Effect.promise(stop)
      )
      const options = {
        cluster: {
          nodes: cluster.nodes.map(({ url }) => nodeOf(url)),
          options: { maxRedirections: 3, retryDelayOnTryAgain: 10 }
        },
        // all keys in the one slot that moves
        shards: 1
      }
      const { keys, offsets } = yield* openStore(options)
      const done = Array.from({ length: 20 }, (_, index) => ({ key: `done ${index}` }))
      const open = { key: "open" }
      yield* keys.claim("orders", [...done, open], termsOf(600_000, "c"))
      yield* keys.complete({ namespace: "orders", claimId: "c" }, done)
      yield* offsets.claim("orders", OffsetRanges.openEnded(0), termsOf(600_000, "c"))
      yield* offsets.complete({ stream: "orders", claimId: "c" }, OffsetRanges.make(0, 10))

      /** Key by key, in whatever order, and between any two of them the same questions. */
      const move = (key: string, questions: Effect.Effect<void>) =>
        Effect.gen(function* () {
          const owner = yield* ownerOf(key)
          const to = (owner + 1) % cluster.nodes.length
          const { finish, slot } = yield* Effect.promise(() => cluster.beginSlotMove(key, to))
          const [source, target] = [cluster.nodes[owner]!, cluster.nodes[to]!]
          yield* questions
          const names = yield* on(source.url, (client) => client.cluster("GETKEYSINSLOT", slot, 100))
          const { host, port } = nodeOf(target.url)
          for (const name of (names as Array<string>).sort()) {
            yield* on(source.url, (client) => client.migrate(host, port, name, 0, 5_000))
            yield* questions
          }
          yield* Effect.promise(finish)
          yield* questions
        })
      const ownerOf = (key: string) =>
        Effect.promise(async () => {
          const owners = await Promise.all(
            cluster.nodes.map(async ({ url }) => {
              const client = new Redis(url)
              const answer = await client.exists(key).catch(() => 0)
              client.disconnect()
              return answer === 1
            })
          )
          return owners.indexOf(true)
        })
      let moved = 0
      const orMoved = <A, E>(
        question: Effect.Effect<A, E>,
        check: (answer: A) => void
      ): Effect.Effect<void> =>
        Effect.match(question, {
          onFailure: (error) => {
            expect(error).toMatchObject({ _tag: "StoreError", reason: "Moved", retriable: true })
            moved += 1
          },
          onSuccess: check
        })

      yield* move(
        "tidemark:k:{orders}",
        Effect.gen(function* () {
          const again = keys.claim("orders", [...done, open], termsOf(600_000))
          yield* orMoved(again, (answers) => {
            expect(answers.map(({ _tag }) => _tag)).toEqual([...done.map(() => "Completed"), "InFlight"])
          })
          yield* orMoved(keys.lookup("orders", ["done 3"]), ([status]) =>
            expect(status!._tag).toBe("Completed")
          )
          yield* orMoved(keys.complete({ namespace: "orders", claimId: "c" }, done), (answers) =>
            expect(new Set(answers)).toEqual(new Set(["AlreadyCompleted"]))
          )
        })
      )
      yield* move(
        "tidemark:s:{orders}",
        Effect.gen(function* () {
          const again = offsets.claim("orders", OffsetRanges.openEnded(0), termsOf(600_000))
          yield* orMoved(again, ({ completed, granted }) =>
            expect([String(granted), String(completed)]).toEqual(["", "[0,10)"])
          )
        })
      )
      expect(moved).toBeGreaterThan(0)
      expect(yield* keys.complete({ namespace: "orders", claimId: "c" }, [open])).toEqual(["Completed"])
    })
  )
})

const on = <A>(url: string, ask: (client: Redis) => Promise<A>): Effect.Effect<A> =>
  Effect.promise(async () => {
    const client = new Redis(url)
    try {
      return await ask(client)
    } finally {
      client.disconnect()
    }
  })
