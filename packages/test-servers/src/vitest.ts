import { describe, inject } from "vitest"
import type {} from "./globalSetup.ts"
import { askForServer, type ServerDescriptions, type ServerKind, tellNotRun } from "./SharedServers.ts"

const isRequired = (name: string): boolean =>
  (process.env.TIDEMARK_REQUIRE ?? "")
    .toLowerCase()
    .split(/[\s,]+/)
    .includes(name)

/** Registers tests that can't run here as skipped; where what they need is required, fails with why. */
const describeNotRun = (name: string, why: string, title: string, body: () => void): void => {
  if (isRequired(name)) throw new Error(`TIDEMARK_REQUIRE names ${name}, which cannot be had here: ${why}`)
  describe.skip(`${title} (NOT RUN: ${name.toUpperCase()})`, body)
}

interface Need<Kind extends ServerKind> {
  readonly kind: Kind
  /** As `TIDEMARK_REQUIRE` calls it. */
  readonly name: string
  /** What skipped tests are registered with. */
  readonly missing: ServerDescriptions[Kind]
}

const describeWith = async <Kind extends ServerKind>(
  { kind, missing, name }: Need<Kind>,
  title: string,
  body: (server: ServerDescriptions[Kind]) => void
): Promise<void> => {
  const answer = await askForServer(inject("sharedServers"), kind)
  if (answer.type === "available") {
    describe(title, () => body(answer.server))
  } else if (answer.type === "failed") {
    throw new Error(answer.message)
  } else {
    describeNotRun(name, answer.message, title, () => body(missing))
  }
}

/**
 * A `describe` for tests that need of the machine what is no server of the run: a right, a program, a build of a
 * library. Where it is not there, the tests are skipped and the run says NOT RUN; with `what` in `TIDEMARK_REQUIRE` the
 * file fails.
 *
 * @param isThere - whether the machine has it.
 * @param what - one word for it, which the run says in capitals.
 * @param why - why it is not there, or what it takes, for people.
 *
 * @example
 * await describeWhere(isRoot, "mounting", "takes Linux and root")("a full disk", () => {
 *   test("is Full", () => { ... })
 * })
 */
export const describeWhere =
  (isThere: boolean, what: string, why: string) =>
  async (title: string, body: () => void): Promise<void> => {
    if (isThere) {
      describe(title, body)
      return
    }
    const line = `${what.toUpperCase()} (${why})`
    await tellNotRun(inject("sharedServers"), line)
    describeNotRun(what, line, title, body)
  }

/**
 * A `describe` whose tests run against the Kafka of this test run, which is started at the first call. Where there
 * is none, the tests are skipped and the run says NOT RUN; with `kafka` in `TIDEMARK_REQUIRE` the file fails.
 *
 * The cluster may be the user's own: give topics, groups and transactional ids a `uniqueName`, and leave all else
 * on it alone. `body` only registers tests; it may not talk to the brokers itself.
 *
 * @example
 * await describeWithKafka("KafkaConsumer", ({ brokers }) => {
 *   test("reads what was produced", async () => { ... })
 * })
 */
export const describeWithKafka = (
  title: string,
  body: (kafka: ServerDescriptions["kafka"]) => void
): Promise<void> =>
  describeWith({ kind: "kafka", name: "kafka", missing: { brokers: [], kind: "given" } }, title, body)

/**
 * A `describe` for tests that kill or restart a broker, each of which starts its own with `startOwnKafka`. Where
 * none can be started, it skips and fails as `describeWithKafka` does, whether or not `KAFKA_BROKERS` is set.
 */
export const describeWithOwnKafka = (title: string, body: () => void): Promise<void> =>
  describeWith({ kind: "ownKafka", name: "kafka", missing: {} }, title, body)

/**
 * A `describe` whose tests run against the Redis of this test run, which is started at the first call. Where there
 * is none, the tests are skipped and the run says NOT RUN; with `redis` in `TIDEMARK_REQUIRE` the file fails.
 *
 * The server may be the user's own: let all keys and channels begin with a `uniqueName`, flush nothing, change no
 * setting. `body` only registers tests; it may not talk to the server itself.
 *
 * @example
 * await describeWithRedis("RedisStore", ({ url }) => {
 *   test("remembers what was completed", async () => { ... })
 * })
 */
export const describeWithRedis = (
  title: string,
  body: (redis: ServerDescriptions["redis"]) => void
): Promise<void> =>
  describeWith({ kind: "redis", name: "redis", missing: { url: "", kind: "given" } }, title, body)

/**
 * The same with the Valkey of this test run, for tests that show that a store works there too: `valkey` in
 * `TIDEMARK_REQUIRE`.
 */
export const describeWithValkey = (
  title: string,
  body: (valkey: ServerDescriptions["valkey"]) => void
): Promise<void> =>
  describeWith({ kind: "valkey", name: "valkey", missing: { url: "", kind: "given" } }, title, body)

/**
 * A `describe` for tests that kill, pause, fill or configure a server, each of which starts its own with
 * `startOwnRedis`. Where none can be started, it skips and fails as `describeWithRedis` does, whether or not
 * `REDIS_URL` is set.
 */
export const describeWithOwnRedis = (title: string, body: () => void): Promise<void> =>
  describeWith({ kind: "ownRedis", name: "redis", missing: {} }, title, body)

/**
 * A `describe` whose tests run against the Redis Cluster of this test run: three nodes, by their URLs, started at the
 * first call. Where none can be started, the tests are skipped and the run says NOT RUN; with `redis-cluster` in
 * `TIDEMARK_REQUIRE` the file fails. Other tests work there too: see `describeWithRedis`.
 *
 * @example
 * await describeWithRedisCluster("RedisStore on a cluster", ({ urls }) => {
 *   test("keeps a stream in one slot", async () => { ... })
 * })
 */
export const describeWithRedisCluster = (
  title: string,
  body: (cluster: ServerDescriptions["redisCluster"]) => void
): Promise<void> =>
  describeWith({ kind: "redisCluster", name: "redis-cluster", missing: { urls: [] } }, title, body)

/**
 * A `describe` for tests that need several servers of their own which know each other, and start them with
 * `startRedisCluster`, `startRedisReplication` or `startRedisSentinel`. Where that is not possible, it skips and fails
 * as `describeWithRedisCluster` does.
 */
export const describeWithOwnRedisCluster = (title: string, body: () => void): Promise<void> =>
  describeWith({ kind: "ownRedisCluster", name: "redis-cluster", missing: {} }, title, body)
