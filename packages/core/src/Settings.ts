/**
 * The settings that people know from older trackers, read from the environment.
 *
 * They bound how many idempotency keys the memory store remembers, and for how long. Positions have no bound and no
 * expiry, and need none: a contiguous run costs two numbers however long it is.
 *
 * A bound of `maxTrackedOffsets` keys, each remembered for `ttlSeconds`, holds a steady rate of
 * `maxTrackedOffsets / ttlSeconds` new ids a second; above it the oldest are forgotten before their time, each one
 * counted: 166 a second by default and with `highThroughput`, 83 with `memoryConstrained`.
 */
import { Config, ConfigProvider, Effect } from "effect"

export interface Settings {
  /** How many idempotency keys are remembered at most; 1 to 10,000,000. `MAX_TRACKED_OFFSETS`. */
  readonly maxTrackedOffsets: number
  /** How long a completed key is remembered, in seconds; 1 to 31,536,000. `OFFSET_CACHE_TTL_SECONDS`. */
  readonly ttlSeconds: number
  /** How often expired keys are swept out, in seconds; 1 to 86,400. `OFFSET_CLEANUP_INTERVAL`. */
  readonly cleanupIntervalSeconds: number
  /** `false`: handlers run unguarded. `OFFSET_TRACKING_ENABLED`. */
  readonly enabled: boolean
}

/** 50,000 keys for 5 minutes, swept every minute. */
export const defaults: Settings = {
  maxTrackedOffsets: 50_000,
  ttlSeconds: 300,
  cleanupIntervalSeconds: 60,
  enabled: true
}

/** 100,000 keys for 10 minutes, swept every 2 minutes: a longer memory at the same steady rate. */
export const highThroughput: Settings = {
  maxTrackedOffsets: 100_000,
  ttlSeconds: 600,
  cleanupIntervalSeconds: 120,
  enabled: true
}

/** 10,000 keys for 2 minutes, swept every 30 seconds. */
export const memoryConstrained: Settings = {
  maxTrackedOffsets: 10_000,
  ttlSeconds: 120,
  cleanupIntervalSeconds: 30,
  enabled: true
}

/** How many new ids a second the settings can remember for their full time. */
export const sustainedRate = (settings: Settings): number => settings.maxTrackedOffsets / settings.ttlSeconds

const refuse = (name: string, value: string, allowed: string): Config.ConfigError =>
  new Config.ConfigError(
    new ConfigProvider.SourceError({ message: `${name} is ${JSON.stringify(value)}; allowed: ${allowed}` })
  )

/**
 * An integer from the environment.
 *
 * Fails with a `ConfigError` that names the variable, the value and what is allowed.
 */
export const integer = (name: string, min: number, max: number): Config.Config<number> =>
  Config.String(name).pipe(
    Config.mapEffect((text) => {
      const value = /^\s*[+-]?\d+\s*$/.test(text) ? Number(text) : Number.NaN
      return value >= min && value <= max
        ? Effect.succeed(value)
        : Effect.fail(refuse(name, text, `an integer from ${min} to ${max}`))
    })
  )

const flagWords: ReadonlyMap<string, boolean> = new Map([
  ["true", true],
  ["yes", true],
  ["on", true],
  ["1", true],
  ["false", false],
  ["no", false],
  ["off", false],
  ["0", false]
])

/**
 * A yes or no from the environment.
 *
 * Fails with a `ConfigError` that names the variable, the value and what is allowed.
 */
export const flag = (name: string): Config.Config<boolean> =>
  Config.String(name).pipe(
    Config.mapEffect((text) => {
      const value = flagWords.get(text.trim().toLowerCase())
      return value === undefined
        ? Effect.fail(refuse(name, text, "true, yes, on, 1, false, no, off, 0"))
        : Effect.succeed(value)
    })
  )

/**
 * The settings from the environment (or any other `ConfigProvider`); where a variable is absent, from `base`.
 *
 * @example
 * MAX_TRACKED_OFFSETS=100000 OFFSET_CACHE_TTL_SECONDS=600 node consumer.js
 */
export const config = (base: Settings = defaults): Config.Config<Settings> =>
  Config.unwrap({
    maxTrackedOffsets: integer("MAX_TRACKED_OFFSETS", 1, 10_000_000).pipe(
      Config.withDefault(base.maxTrackedOffsets)
    ),
    ttlSeconds: integer("OFFSET_CACHE_TTL_SECONDS", 1, 31_536_000).pipe(Config.withDefault(base.ttlSeconds)),
    cleanupIntervalSeconds: integer("OFFSET_CLEANUP_INTERVAL", 1, 86_400).pipe(
      Config.withDefault(base.cleanupIntervalSeconds)
    ),
    enabled: flag("OFFSET_TRACKING_ENABLED").pipe(Config.withDefault(base.enabled))
  })
