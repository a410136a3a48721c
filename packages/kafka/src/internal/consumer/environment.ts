/** What the parts of one running consumer share. */
import type {
  ClaimIdReused,
  IdempotencyStoreService,
  InvalidInput,
  OffsetStoreService,
  StoreError
} from "@tidemark/core"
import type { Cause, Clock, Config, Effect, Fiber, Scheduler } from "effect"
import type {
  DecodeFailed,
  HandlerStalled,
  LogWentBack,
  SetAsideFailed,
  StoreLost
} from "../../ConsumerErrors.ts"
import type { KafkaClient, TopicPartition } from "../../KafkaClient.ts"
import type { KafkaError } from "../../KafkaErrors.ts"
import type { Claims } from "./Claims.ts"
import type { Counters } from "./counters.ts"
import type { Partition } from "./Partition.ts"
import type { Processing } from "./Processing.ts"
import type { Settings } from "./settings.ts"

/** What can stop a consumer, besides its handler. */
export type ConsumerFailure =
  | KafkaError
  | StoreError
  | InvalidInput
  | ClaimIdReused
  | StoreLost
  | LogWentBack
  | DecodeFailed
  | SetAsideFailed
  | HandlerStalled
  | Config.ConfigError

export interface Environment {
  readonly settings: Settings
  readonly client: KafkaClient["Service"]
  readonly offsets: OffsetStoreService
  readonly keys: IdempotencyStoreService
  readonly counters: Counters
  readonly processing: Pick<Processing<never, never>, "identify" | "prepare">
  readonly claims: Claims
  readonly clock: Clock.Clock
  readonly dispatcher: Scheduler.SchedulerDispatcher
  /** Begins a fiber of its own, which whoever begins it also ends. */
  readonly fork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
  /** Stops the consumer; the first cause is the one that it fails with. */
  readonly fail: (cause: Cause.Cause<ConsumerFailure>) => void
  /** The number of partitions that the topic had when the consumer started. */
  readonly initialPartitions: (topic: string) => number
  /** Whether the group still counts us as this partition's owner, as far as we can know. */
  readonly isOurs: (partition: Partition) => boolean
  /** Whether somebody has paused it. */
  readonly isHeld: (partition: TopicPartition) => boolean
  /** The partition may have a record to start; `spread`: look for a worker. */
  readonly activate: (partition: Partition, spread: boolean) => void
  /** So many more (or fewer) records have been processed, and are not completed in the store. */
  readonly addUnmarked: (records: number) => void
  readonly revoke: (partition: Partition, tile?: number) => void
  readonly pause: (partition: TopicPartition) => void
  readonly resume: (partition: TopicPartition) => void
  /** The next batch begins here. */
  readonly seek: (partition: TopicPartition, offset: number) => void
  /** Commits a position by itself. `false`: the group does not take it from us now. */
  readonly commit: (
    partition: TopicPartition,
    offset: number,
    epoch: number
  ) => Effect.Effect<boolean, KafkaError>
  /** The partition has been let go, and may be had again. */
  readonly onLost: (partition: Partition) => void
}
