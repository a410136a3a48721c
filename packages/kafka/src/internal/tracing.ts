/** Spans around handlers, where a tracer is installed; elsewhere nothing of this runs. */
import { Context, Effect, References, Tracer } from "effect"
import type { KafkaRecord } from "../KafkaClient.ts"
import * as TraceContext from "../TraceContext.ts"

/** Whether spans go anywhere: Effect's own tracer keeps them in memory, where nobody looks. */
export const isTraced = (context: Context.Context<never>): boolean =>
  Context.get(context, References.TracerEnabled) &&
  Context.get(context, Tracer.Tracer) !== Tracer.nativeTracer

/** Named as OpenTelemetry's conventions for messaging have it. */
const attributesOf = (groupId: string, { partition, topic }: KafkaRecord) => ({
  "messaging.system": "kafka",
  "messaging.operation.type": "process",
  "messaging.destination.name": topic,
  "messaging.destination.partition.id": String(partition),
  "messaging.consumer.group.name": groupId
})

const senderOf = ({ headers }: KafkaRecord): Tracer.ExternalSpan | undefined => {
  const sender = TraceContext.fromHeaders(headers)
  return sender === undefined ? undefined : TraceContext.toSpan(sender)
}

/** Runs what is done about a record in a span of its own, whose parent is the span that sent the record. */
export const inSpanOf = <A, E, R>(
  record: KafkaRecord,
  groupId: string,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, Exclude<R, Tracer.ParentSpan>> => {
  const parent = senderOf(record)
  return Effect.withSpan(effect, `process ${record.topic}`, {
    kind: "consumer",
    // without a sender, a trace of its own: not a part of the one in which the consumer was started, perhaps days ago
    ...(parent === undefined ? { root: true } : { parent }),
    captureStackTrace: false,
    attributes: { ...attributesOf(groupId, record), "messaging.kafka.offset": record.offset }
  })
}

/** Runs what is done about several records in one span, which is linked to the spans that sent them. */
const inSpanOfAll = <A, E, R>(
  records: ReadonlyArray<KafkaRecord>,
  groupId: string,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, Exclude<R, Tracer.ParentSpan>> => {
  const senders = records.map(senderOf).filter((sender) => sender !== undefined)
  return Effect.withSpan(effect, `process ${records[0].topic}`, {
    kind: "consumer",
    root: true,
    captureStackTrace: false,
    links: senders.map((span) => ({ span, attributes: {} })),
    attributes: {
      ...attributesOf(groupId, records[0]),
      "messaging.batch.message_count": records.length
    }
  })
}

/** Puts handlers into spans; leaves them as they are where no tracer is installed. */
export const spansFor = (context: Context.Context<never>, groupId: string): Spans => {
  if (!isTraced(context)) return { record: (handler) => handler, batch: (handler) => handler }
  return {
    record: (handler) => (record, claim) =>
      inSpanOf(
        record,
        groupId,
        Effect.suspend(() => handler(record, claim))
      ),
    batch: (handler) => (records, claim) =>
      inSpanOfAll(
        records,
        groupId,
        Effect.suspend(() => handler(records, claim))
      )
  }
}

type HandlerOf<Input, Claim, A, E, R> = (input: Input, claim: Claim) => Effect.Effect<A, E, R>

export interface Spans {
  readonly record: <Claim, A, E, R>(
    handler: HandlerOf<KafkaRecord, Claim, A, E, R>
  ) => HandlerOf<KafkaRecord, Claim, A, E, R>
  readonly batch: <Claim, A, E, R>(
    handler: HandlerOf<ReadonlyArray<KafkaRecord>, Claim, A, E, R>
  ) => HandlerOf<ReadonlyArray<KafkaRecord>, Claim, A, E, R>
}
