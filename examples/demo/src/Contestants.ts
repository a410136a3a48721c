/** The three that race, each as its users write it, on the same client and with the same work. */
import { IdempotencyStore } from "@tidemark/core"
import { KafkaClient, KafkaConsumer, type KafkaRecord } from "@tidemark/kafka"
import { Effect } from "effect"
import { monotonicMillis, type Receipt, type Tell } from "./Notes.ts"
import { runPlainConsumer } from "./PlainConsumer.ts"
import { checkProcessAdd, claimFirst, type KeyStore } from "./Trackers.ts"

export const contestants = ["check-process-add", "claim without a lease", "tidemark"] as const
export type Contestant = (typeof contestants)[number]

/** What one consumer is to do. */
export interface Job {
  readonly contestant: Contestant
  /** Of the consumer: names it to the broker, to its tracker, and to the ledger. */
  readonly name: string
  readonly topic: string
  readonly groupId: string
  /** How many records are in work at once. */
  readonly concurrency: number
  /** Of the work. */
  readonly workMillis: number
  /** After this long in silence the group takes a consumer for dead; tidemark's leases last as long. */
  readonly sessionTimeoutMillis: number
}

const sleep = (millis: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, millis))

const receiptOf = (record: KafkaRecord): Receipt => ({
  orderId: record.key?.toString() ?? "",
  partition: record.partition,
  offset: record.offset
})

/** The wire to the broker, as the ledger watches it: what is delivered, and when a group has been joined. */
const watchedClient = (client: KafkaClient["Service"], tell: Tell): KafkaClient["Service"] => ({
  ...client,
  join: (options) =>
    client.join({
      ...options,
      events: {
        ...options.events,
        onAssignment: (assignment) => {
          tell({ what: "assigned", partitions: assignment.partitions.length })
          options.events.onAssignment(assignment)
        },
        onBatch: (batch) => {
          if (batch.records.length > 0)
            tell({ what: "received", atMillis: monotonicMillis(), receipts: batch.records.map(receiptOf) })
          options.events.onBatch(batch)
        }
      }
    })
})

/** The wire to the store: when what was marked has been acknowledged. */
const watchedKeys = (keys: IdempotencyStore["Service"], tell: Tell): IdempotencyStore["Service"] =>
  IdempotencyStore.of({
    ...keys,
    complete: (claim, items, options) =>
      Effect.tap(keys.complete(claim, items, options), (answers) =>
        Effect.sync(() => {
          const marked = items.filter((_, index) => answers[index] !== "LeaseLost")
          tell({ what: "marked", atMillis: monotonicMillis(), orderIds: marked.map(({ key }) => key) })
        })
      )
  })

/** Works until it is interrupted, or fails; every record is an order, whose id is its key. */
export const runTidemark = (job: Job, tell: Tell) =>
  KafkaConsumer.run({
    topics: [job.topic],
    groupId: job.groupId,
    owner: job.name,
    order: "none",
    concurrency: job.concurrency,
    maxUnmarked: 2 * job.concurrency,
    sessionTimeout: job.sessionTimeoutMillis,
    lease: job.sessionTimeoutMillis,
    identify: (record) => record.key?.toString(),
    handler: (record) =>
      Effect.gen(function* () {
        const receipt = receiptOf(record)
        tell({ what: "begun", atMillis: monotonicMillis(), receipt })
        yield* Effect.sleep(job.workMillis)
        tell({ what: "effect", atMillis: monotonicMillis(), orderId: receipt.orderId })
      })
  }).pipe(
    Effect.updateService(KafkaClient, (client) => watchedClient(client, tell)),
    Effect.updateService(IdempotencyStore, (keys) => watchedKeys(keys, tell))
  )

/** As {@link runTidemark}, with one of the two usual trackers on this store. */
export const runUsual = (
  job: Job & { readonly contestant: Exclude<Contestant, "tidemark"> },
  store: KeyStore,
  tell: Tell
): Effect.Effect<void, unknown, KafkaClient> => {
  const once = (job.contestant === "check-process-add" ? checkProcessAdd : claimFirst)(store)
  return runPlainConsumer({
    ...job,
    handle: async (record) => {
      const receipt = receiptOf(record)
      const { orderId } = receipt
      let ran = false
      await once(orderId, async () => {
        ran = true
        tell({ what: "begun", atMillis: monotonicMillis(), receipt })
        await sleep(job.workMillis)
        tell({ what: "effect", atMillis: monotonicMillis(), orderId })
      })
      if (ran) tell({ what: "marked", atMillis: monotonicMillis(), orderIds: [orderId] })
    }
  }).pipe(Effect.updateService(KafkaClient, (client) => watchedClient(client, tell)))
}
