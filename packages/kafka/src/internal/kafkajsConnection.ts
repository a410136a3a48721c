import { Effect } from "effect"
import type { Kafka } from "kafkajs"
import type { KafkaError } from "../KafkaErrors.ts"
import type { ClientSettings } from "./clientOptions.ts"
import { toKafkaError } from "./kafkajsErrors.ts"
import type { ErrorContext } from "./protocolErrors.ts"

/** What the parts of the kafkajs driver share. */
export interface Connection extends ClientSettings {
  readonly brokers: ReadonlyArray<string>
  /** One for `admin` and `producer`. */
  readonly kafka: Kafka
  /**
   * A kafkajs client for one group member: kafkajs keeps one table of committed offsets per client and group, so
   * members that shared a client would clear each other's. `destroySockets` ends its connections at once, and
   * refuses new ones.
   */
  readonly makeMemberKafka: (groupId: string) => Effect.Effect<MemberKafka, KafkaError>
  /** A kafkajs client for one transactional producer. */
  readonly makeProducerKafka: () => EndableKafka
}

/** A kafkajs client whose connections can be ended at once, after which it makes no more. */
export interface EndableKafka {
  readonly kafka: Kafka
  readonly destroySockets: () => void
}

export interface MemberKafka extends EndableKafka {
  /** The member is gone. */
  readonly release: () => void
}

/** A kafkajs promise as an Effect whose error is ours. */
export const call = <A>(promise: () => Promise<A>, context: ErrorContext): Effect.Effect<A, KafkaError> =>
  Effect.tryPromise({ try: promise, catch: (error) => toKafkaError(error, context) })
