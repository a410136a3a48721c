/** From the records of a batch to those that are produced for them. */
import { InvalidInput } from "@tidemark/core"
import { type Cause, Effect, Exit, type Tracer } from "effect"
import type { HeaderValue, KafkaRecord, ProducerRecord } from "../../KafkaClient.ts"
import type { OutputRecord } from "../../KafkaPipe.ts"
import * as TraceContext from "../../TraceContext.ts"
import { inSpanOf } from "../tracing.ts"
import type { SettingsAndTransform } from "./settings.ts"

/** Records that follow each other in the log, all of which took effect or none. */
export interface Batch {
  readonly records: ReadonlyArray<KafkaRecord>
  /** The position behind them. */
  readonly nextOffset: number
}

/** What becomes of a batch, or of the records of it up to the one that failed. */
export interface Transformed<E> {
  readonly outputs: ReadonlyArray<ProducerRecord>
  /** How many records it is made of. */
  readonly count: number
  readonly nextOffset: number
  /** Why it does not go on behind them. */
  readonly failure: Cause.Cause<E> | undefined
}

export type Transformation<E, R> = (
  batch: Batch,
  isStopped: () => boolean
) => Effect.Effect<Transformed<E | InvalidInput>, never, R>

type TraceHeaders = Readonly<Record<string, HeaderValue>> | undefined

/** What goes along unchanged where no span is made: a sender's trace does not end with us. */
const passedOn = ({ headers: { traceparent, tracestate } }: KafkaRecord): TraceHeaders => {
  if (traceparent === undefined) return undefined
  return tracestate === undefined ? { traceparent } : { traceparent, tracestate }
}

const ofSpan = (record: KafkaRecord, span: Tracer.AnySpan): TraceHeaders => {
  const context = TraceContext.ofSpan(span, TraceContext.fromHeaders(record.headers)?.state)
  return context === undefined ? undefined : { ...TraceContext.format(context) }
}

/**
 * Runs `transform` on the records of a batch, `concurrency` at once, and puts what they give into the records' order.
 * What comes before the first failure counts; of what comes behind it nothing is kept. Asked to stop, it begins no
 * further record.
 */
export const makeTransformation = <E, R>(
  { concurrency, defaultTopic, groupId, retry, to, transform }: SettingsAndTransform<E, R>,
  traced: boolean
): Transformation<E, R> => {
  const allowed = [...to].join(", ")

  const addressed = (
    outputs: ReadonlyArray<OutputRecord>,
    trace: TraceHeaders
  ): ReadonlyArray<ProducerRecord> | InvalidInput => {
    const records: Array<ProducerRecord> = []
    for (const output of outputs) {
      const topic = output.topic ?? defaultTopic
      if (topic === undefined || !to.has(topic))
        return new InvalidInput({
          field: "topic of a record that transform gave",
          value: topic === undefined ? "missing" : `"${topic}"`,
          allowed: `one of those in to: ${allowed}`
        })
      records.push(
        trace === undefined || output.headers?.traceparent !== undefined
          ? { ...output, topic }
          : { ...output, topic, headers: { ...output.headers, ...trace } }
      )
    }
    return records
  }

  const attempt = (record: KafkaRecord): Effect.Effect<ReadonlyArray<OutputRecord>, E, R> => {
    const once = Effect.suspend(() => transform(record))
    return retry === undefined ? once : Effect.retry(once, retry)
  }

  const plain = (record: KafkaRecord) =>
    Effect.map(attempt(record), (outputs) => addressed(outputs, passedOn(record)))

  const spanned = (record: KafkaRecord) =>
    inSpanOf(
      record,
      groupId,
      Effect.flatMap(Effect.orDie(Effect.currentSpan), (span) =>
        Effect.map(attempt(record), (outputs) => addressed(outputs, ofSpan(record, span)))
      )
    )

  const one: (record: KafkaRecord) => Effect.Effect<ReadonlyArray<ProducerRecord> | InvalidInput, E, R> =
    traced ? spanned : plain

  return ({ nextOffset, records }, isStopped) =>
    Effect.suspend(() => {
      const results = new Array<ReadonlyArray<ProducerRecord> | undefined>(records.length)
      const all = Effect.forEach(
        records,
        (record, index) =>
          isStopped()
            ? Effect.void
            : Effect.flatMap(one(record), (result) => {
                if (result instanceof InvalidInput) return Effect.fail(result)
                results[index] = result
                return Effect.void
              }),
        { concurrency, discard: true }
      )
      return Effect.map(Effect.exit(all), (exit): Transformed<E | InvalidInput> => {
        const outputs: Array<ProducerRecord> = []
        let count = 0
        for (let done = results[0]; done !== undefined; done = results[++count])
          for (const output of done) outputs.push(output)
        return {
          outputs,
          count,
          nextOffset: records[count]?.offset ?? nextOffset,
          failure: Exit.isFailure(exit) ? exit.cause : undefined
        }
      })
    })
}
