import { assert, describe, it } from "@effect/vitest"
import { Settings } from "@tidemark/core"
import { ConfigProvider, Effect } from "effect"

const read = (environment: Record<string, string>, base?: Settings.Settings) =>
  Settings.config(base).parse(ConfigProvider.fromUnknown(environment))

describe("Settings", () => {
  it.effect("are the defaults where nothing is set", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* read({}), {
        maxTrackedOffsets: 50_000,
        ttlSeconds: 300,
        cleanupIntervalSeconds: 60,
        enabled: true
      })
    })
  )

  it.effect("come from the environment, each by its name, over the preset", () =>
    Effect.gen(function* () {
      const environment = {
        MAX_TRACKED_OFFSETS: "7",
        OFFSET_CACHE_TTL_SECONDS: "8",
        OFFSET_CLEANUP_INTERVAL: "9",
        OFFSET_TRACKING_ENABLED: "false"
      }
      assert.deepStrictEqual(yield* read(environment, Settings.highThroughput), {
        maxTrackedOffsets: 7,
        ttlSeconds: 8,
        cleanupIntervalSeconds: 9,
        enabled: false
      })
      assert.deepStrictEqual(yield* read({ MAX_TRACKED_OFFSETS: "7" }, Settings.memoryConstrained), {
        ...Settings.memoryConstrained,
        maxTrackedOffsets: 7
      })
    })
  )

  it.effect("an empty variable counts as absent", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* read({ MAX_TRACKED_OFFSETS: "" })).maxTrackedOffsets, 50_000)
    })
  )

  it("sustain the rate that their comments say", () => {
    assert.deepStrictEqual(
      [Settings.defaults, Settings.highThroughput, Settings.memoryConstrained].map((settings) =>
        Math.floor(Settings.sustainedRate(settings))
      ),
      [166, 166, 83]
    )
  })

  it.effect.each([
    ["MAX_TRACKED_OFFSETS", "0", "an integer from 1 to 10000000"],
    ["MAX_TRACKED_OFFSETS", "many", "an integer from 1 to 10000000"],
    ["MAX_TRACKED_OFFSETS", "1e3", "an integer from 1 to 10000000"],
    ["OFFSET_CACHE_TTL_SECONDS", "-5", "an integer from 1 to 31536000"],
    ["OFFSET_CACHE_TTL_SECONDS", "1.5", "an integer from 1 to 31536000"],
    ["OFFSET_CLEANUP_INTERVAL", "NaN", "an integer from 1 to 86400"],
    ["OFFSET_TRACKING_ENABLED", "maybe", "true, yes, on, 1, false, no, off, 0"],
    ["OFFSET_TRACKING_ENABLED", "constructor", "true, yes, on, 1, false, no, off, 0"]
  ] as const)(
    "%s=%s is a ConfigError that names variable, value and what is allowed",
    ([name, value, allowed]) =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(read({ [name]: value }))
        assert.strictEqual(error._tag, "ConfigError")
        assert.include(error.message, name)
        assert.include(error.message, JSON.stringify(value))
        assert.include(error.message, allowed)
      })
  )
})
