/** Many offsets, in any order: runs, bitmaps and full pages, against the rules themselves. */
import { assert, it } from "@effect/vitest"
import { OffsetRanges, Protocol } from "@tidemark/core"
import { uniqueName } from "@tidemark/test-servers"
import { describeWithRedis } from "@tidemark/test-servers/vitest"
import { Effect } from "effect"
import * as fc from "fast-check"
import { Redis } from "ioredis"
import { openStore, RedisStore } from "./store.ts"

const page = 4_096
const lease = 600_000

/** Ranges around the joints of pages, long and short, dense and scattered. */
const ranges = fc.oneof(
  fc
    .tuple(fc.integer({ min: 0, max: 6 * page }), fc.integer({ min: 1, max: 2 * page }))
    .map(([from, length]) => OffsetRanges.make(from, from + length)),
  fc
    .tuple(fc.integer({ min: 0, max: 6 }), fc.integer({ min: -3, max: 3 }), fc.integer({ min: 1, max: 6 }))
    .map(([number, shift, length]) => {
      const from = Math.max(0, number * page + shift)
      return OffsetRanges.make(from, from + length)
    }),
  fc
    .tuple(
      fc.integer({ min: 0, max: 6 * page }),
      fc.integer({ min: 2, max: 12 }),
      fc.integer({ min: 1, max: 400 })
    )
    .map(([from, step, count]) =>
      OffsetRanges.fromOffsets(Array.from({ length: count }, (_, index) => from + index * step))
    ),
  fc
    .uniqueArray(fc.integer({ min: 0, max: 6 * page }), { minLength: 1, maxLength: 300 })
    .map((offsets) => OffsetRanges.fromOffsets(offsets))
)

const command = fc.oneof(
  { weight: 8, arbitrary: fc.record({ verb: fc.constant("complete" as const), ranges }) },
  { weight: 2, arbitrary: fc.record({ verb: fc.constant("claim" as const), ranges }) },
  { weight: 1, arbitrary: fc.record({ verb: fc.constant("skip" as const), ranges }) },
  {
    weight: 1,
    arbitrary: fc.record({ verb: fc.constant("rewind" as const), to: fc.integer({ min: 0, max: 6 * page }) })
  }
)

const shown = (answer: object) =>
  JSON.parse(JSON.stringify(answer, (key, value) => (key === "until" || key === "token" ? undefined : value)))

await describeWithRedis("OffsetStore on Redis", ({ url }) => {
  const prefix = uniqueName("offsets")
  const layer = RedisStore.layer({ url, prefix })

  it.live("keeps what is completed as the rules do, however it is scattered over pages", () =>
    Effect.gen(function* () {
      const { offsets } = yield* openStore(layer)
      const run = Effect.runPromiseWith(yield* Effect.context<never>())
      yield* Effect.promise(() =>
        fc.assert(
          fc.asyncProperty(
            fc.integer({ min: 0, max: 3 * page }),
            fc.array(command, { minLength: 1, maxLength: 25 }),
            async (origin, commands) => {
              const stream = uniqueName("stream")
              const model = new Protocol.StreamState()
              let count = 0
              const claimAll = async (from: number): Promise<string> => {
                const terms = { claimId: `all-${count++}`, owner: "o", leaseMillis: lease }
                const asked = OffsetRanges.openEnded(from)
                const [found, expected] = [
                  await run(offsets.claim(stream, asked, terms)),
                  model.claim(asked, terms, Date.now())
                ]
                assert.deepEqual(shown(found), shown(expected as object))
                return terms.claimId
              }
              let claimId = await claimAll(origin)
              for (const step of commands) {
                if (step.verb === "complete") {
                  const found = await run(offsets.complete({ stream, claimId }, step.ranges))
                  assert.deepEqual(shown(found), shown(model.complete(claimId, step.ranges, Date.now())))
                } else if (step.verb === "claim") {
                  // also below the origin, which it lowers
                  const terms = { claimId: `part-${count++}`, owner: "o", leaseMillis: lease }
                  const found = await run(offsets.claim(stream, step.ranges, terms))
                  assert.deepEqual(shown(found), shown(model.claim(step.ranges, terms, Date.now()) as object))
                  await run(offsets.release({ stream, claimId: terms.claimId }))
                  model.release(terms.claimId)
                } else {
                  if (step.verb === "skip") {
                    await run(offsets.skip(stream, step.ranges))
                    model.skip(step.ranges)
                  } else {
                    await run(offsets.rewind(stream, step.to))
                    model.rewind(step.to)
                  }
                  claimId = await claimAll(0)
                }
                const {
                  lastToken: _,
                  claims: __,
                  ...found
                } = (await run(offsets.progress(stream))) as Protocol.Progress
                const {
                  lastToken: ___,
                  claims: ____,
                  ...expected
                } = model.progress(Date.now()) as Protocol.Progress
                assert.deepEqual(shown(found), shown(expected))
              }
            }
          ),
          { numRuns: 40, seed: 4_096 }
        )
      )
    })
  )

  it.live("costs two numbers for a dense stream, and a bit for each offset of a window full of gaps", () =>
    Effect.gen(function* () {
      const { offsets } = yield* openStore(layer)
      const client = yield* Effect.acquireRelease(
        Effect.sync(() => new Redis(url)),
        (open) => Effect.promise(() => open.quit())
      )
      const bytesOf = (stream: string) =>
        Effect.promise(async () =>
          Number(await client.memory("USAGE", `${prefix}:s:{${stream}}`, "SAMPLES", 0))
        )
      const [dense, gaps] = [uniqueName("dense"), uniqueName("gaps")]
      for (const stream of [dense, gaps]) {
        yield* offsets.claim(stream, OffsetRanges.openEnded(0), {
          claimId: "c",
          owner: "o",
          leaseMillis: lease
        })
      }
      for (let from = 0; from < 100_000; from += 500) {
        yield* offsets.complete({ stream: dense, claimId: "c" }, OffsetRanges.make(from, from + 500))
      }
      for (let from = 0; from < 50_000; from += 500) {
        const done = Array.from({ length: 500 }, (_, index) => from + index).filter(
          (offset) => offset % 10 > 0
        )
        yield* offsets.complete({ stream: gaps, claimId: "c" }, OffsetRanges.fromOffsets(done))
      }
      assert.isAtMost((yield* bytesOf(dense)) / 100_000, 0.02)
      assert.isAtMost((yield* bytesOf(gaps)) / 45_000, 0.5)
      assert.deepInclude(yield* offsets.progress(gaps), { watermark: 0, gapCount: 5_000, highest: 50_000 })
    })
  )
})
