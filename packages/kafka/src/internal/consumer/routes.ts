/** Where records go that could not be processed: from each consumed topic to the next retry topic, and at last to rest. */
import { Effect } from "effect"
import type { KafkaClient } from "../../KafkaClient.ts"
import type { KafkaError } from "../../KafkaErrors.ts"
import * as RetryTopics from "../../RetryTopics.ts"

/** One consumed topic. */
export interface Route {
  /** The topic that its records came from in the first place: itself, or the one whose retry topic it is. */
  readonly source: string
  /** How long its records wait; 0: they don't, it is no retry topic. */
  readonly delayMillis: number
  /** The retry topic for records that fail here. */
  readonly next: { readonly topic: string; readonly delayMillis: number } | undefined
  /** Where its dead letters go; `undefined` where no policy needs that. */
  readonly deadLetterTopic: string | undefined
}

export type Routes = ReadonlyMap<string, Route>

/** The routes of all consumed topics, retry topics among them. */
export const makeRoutes = (
  sources: ReadonlyArray<string>,
  delays: ReadonlyArray<number>,
  deadLetterTopic: (topic: string) => string | undefined
): Routes => {
  const routes = new Map<string, Route>()
  for (const source of sources) {
    const stages = [0, ...delays]
    stages.forEach((delayMillis, index) => {
      const after = stages.at(index + 1)
      routes.set(delayMillis === 0 ? source : RetryTopics.nameFor(source, delayMillis), {
        source,
        delayMillis,
        next:
          after === undefined ? undefined : { topic: RetryTopics.nameFor(source, after), delayMillis: after },
        deadLetterTopic: deadLetterTopic(source)
      })
    })
  }
  return routes
}

const exists = (client: KafkaClient["Service"], topic: string): Effect.Effect<boolean, KafkaError> =>
  Effect.matchEffect(client.partitionCounts([topic]), {
    onSuccess: () => Effect.succeed(true),
    onFailure: (error) => (error.reason === "UnknownTopic" ? Effect.succeed(false) : Effect.fail(error))
  })

/** Creates the retry and dead-letter topics that are missing, each with as many partitions as its source has. */
export const ensureTopics = (
  client: KafkaClient["Service"],
  routes: Routes,
  create: boolean
): Effect.Effect<void, KafkaError> =>
  Effect.gen(function* () {
    const wanted = new Map<string, number>()
    const sources = [...new Set([...routes.values()].map(({ source }) => source))]
    const targetsOf = (route: Route) => [route.next?.topic, route.deadLetterTopic]
    if (![...routes.values()].some((route) => targetsOf(route).some((topic) => topic !== undefined))) return
    const counts = yield* client.partitionCounts(sources)
    for (const route of routes.values()) {
      for (const topic of targetsOf(route)) {
        if (topic === undefined) continue
        wanted.set(topic, Math.max(wanted.get(topic) ?? 1, counts.get(route.source) ?? 1))
      }
    }
    // what is missing is an error now, not when the first record needs it
    if (!create) return yield* Effect.asVoid(client.partitionCounts([...wanted.keys()]))
    const missing: Array<{ readonly topic: string; readonly partitions: number }> = []
    for (const [topic, partitions] of wanted)
      if (!(yield* exists(client, topic))) missing.push({ topic, partitions })
    if (missing.length > 0) yield* client.createTopics(missing)
  })
