import { describe, expect, it } from "@effect/vitest"
import { InvalidInput } from "@tidemark/core"
import { Effect } from "effect"
import * as Decoder from "../src/Decoder.ts"
import type { ConsumerOptions } from "../src/KafkaConsumer.ts"
import * as KafkaConsumer from "../src/KafkaConsumer.ts"

const good: ConsumerOptions<never, never> = {
  topics: ["orders"],
  groupId: "billing",
  handler: () => Effect.void
}

const bad: ReadonlyArray<readonly [field: string, value: string, options: object]> = [
  ["topics", "[]", { topics: [] }],
  ["topics", '""', { topics: [""] }],
  ["topics", '"a b"', { topics: ["a b"] }],
  ["topics", '["orders", "orders"]', { topics: ["orders", "orders"] }],
  ["topics", "undefined", { topics: undefined }],
  ["groupId", '""', { groupId: "" }],
  ["groupId", "undefined", { groupId: undefined }],
  ["groupId", '"\\ud800"', { groupId: "\ud800" }],
  ["handler", "undefined", { handler: undefined }],
  ["identify", '"id"', { identify: "id" }],
  ["order", '"keys"', { order: "keys" }],
  ["concurrency", "0", { concurrency: 0 }],
  ["concurrency", "-1", { concurrency: -1 }],
  ["concurrency", "NaN", { concurrency: Number.NaN }],
  ["concurrency", "1.5", { concurrency: 1.5 }],
  ["concurrency", "Infinity", { concurrency: Number.POSITIVE_INFINITY }],
  ["cluster", '""', { cluster: "" }],
  ["owner", '""', { owner: "" }],
  ["start", '"newest"', { start: "newest" }],
  ["whenInFlight", '"skip"', { whenInFlight: "skip" }],
  ["whenStoreLost", '"ignore"', { whenStoreLost: "ignore" }],
  ["bounds.maxInFlight", "0", { bounds: { maxInFlight: 0 } }],
  ["bounds.maxBytes", "NaN", { bounds: { maxBytes: Number.NaN } }],
  ["bounds.maxUnfinishedOffsets", "-5", { bounds: { maxUnfinishedOffsets: -5 } }],
  ["bounds.maxSpan", "0.5", { bounds: { maxSpan: 0.5 } }],
  ["option of bounds", '"maxinFlight"', { bounds: { maxinFlight: 5 } }],
  ["sessionTimeout", "0", { sessionTimeout: 0 }],
  ["sessionTimeout", "NaN", { sessionTimeout: Number.NaN }],
  ["sessionTimeout", "1.5", { sessionTimeout: 1.5 }],
  ["lease", "0", { lease: 0 }],
  ["lease", "-1", { lease: -1 }],
  ["lease", "30001", { lease: 30_001 }],
  ["lease", "6001", { sessionTimeout: "6 seconds", lease: 6_001 }],
  ["drainTimeout", "0", { drainTimeout: 0 }],
  ["commitInterval", "NaN", { commitInterval: Number.NaN }],
  ["retention", "0", { retention: 0 }],
  ["retry", "3", { retry: 3 }],
  ["retryTopics", '"30s"', { retryTopics: "30s" }],
  ["retryTopics", "0", { retryTopics: [0] }],
  ["retryTopics", "0.5", { retryTopics: [0.5] }],
  ["retryTopics", "[1000, 1000]", { retryTopics: ["1 second", 1_000] }],
  ["whenPoison", '"skip"', { whenPoison: "skip" }],
  ["deadLetterTopic", "7", { deadLetterTopic: 7, whenPoison: "dead-letter" }],
  ["deadLetterTopic", '"a b"', { deadLetterTopic: "a b", whenPoison: "dead-letter" }],
  ["deadLetterTopic", '"orders"', { deadLetterTopic: "orders", whenPoison: "dead-letter" }],
  [
    "deadLetterTopic",
    '"orders.retry.1s"',
    { deadLetterTopic: "orders.retry.1s", retryTopics: [1_000], whenPoison: "dead-letter" }
  ],
  [
    "topics",
    '["orders", "orders.retry.1s"]',
    { topics: ["orders", "orders.retry.1s"], retryTopics: [1_000] }
  ],
  ["createTopics", '"no"', { createTopics: "no" }],
  ["decode", '"json"', { decode: "json" }],
  ["identify", "7", { decode: Decoder.text, identify: 7 }],
  ["option of KafkaConsumer", '"group"', { group: "billing" }]
]

describe("KafkaConsumer's options", () => {
  it.effect.each(bad)("refuses %s: %s", ([field, value, options]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        KafkaConsumer.make({ ...good, ...options } as ConsumerOptions<never, never>)
      )
      expect(error).toBeInstanceOf(InvalidInput)
      expect(error).toMatchObject({ field, value })
      expect(error.allowed).not.toBe("")
    })
  )

  it.effect("refuses them before anything starts, from every entry", () =>
    Effect.gen(function* () {
      const options = { ...good, concurrency: 0 }
      // no client and no store could be had here: the error comes before they are asked for
      const error = yield* Effect.flip(
        KafkaConsumer.run(options) as unknown as Effect.Effect<never, InvalidInput>
      )
      expect(error.message).toBe("concurrency is 0; allowed: an integer from 1 to 100000")
    })
  )

  it.effect("accepts what is allowed", () =>
    Effect.gen(function* () {
      for (const options of [
        {},
        { order: "none", concurrency: 100_000, lease: "10 seconds", retention: "30 days", start: "latest" },
        { groupId: "a/b c", cluster: "eu", identify: () => undefined, bounds: {} }
      ])
        yield* KafkaConsumer.make({ ...good, ...options } as ConsumerOptions<never, never>)
    })
  )
})
