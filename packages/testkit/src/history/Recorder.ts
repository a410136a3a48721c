/**
 * Notes each call on a store: when it started, when it was answered, and what the answer was.
 *
 * A call is noted before it is made and again when it is answered, so that what a killed process had begun is known
 * too. Of each claim the owner must be its claim id: answers name owners.
 */
import type {
  IdempotencyStoreService,
  KeyClaimRef,
  OffsetClaimRef,
  OffsetNote,
  OffsetRanges,
  OffsetStoreService,
  Protocol
} from "@tidemark/core"
import { Effect } from "effect"
import { type History, type KeyCall, keyName, type RecordedCall, type StreamCall } from "./History.ts"

/** A call as it was begun. */
export type Begun =
  | { readonly service: "stream"; readonly name: string; readonly call: StreamCall }
  | {
      readonly service: "streams"
      readonly verb: "renew"
      readonly renewals: ReadonlyArray<OffsetClaimRef & { readonly leaseMillis: number }>
    }
  | { readonly service: "streams"; readonly verb: "annotate"; readonly notes: ReadonlyArray<OffsetNote> }
  | {
      readonly service: "keys"
      readonly namespace: string
      readonly claimId: string
      readonly verb: "claim"
      readonly keys: ReadonlyArray<string>
      readonly leaseMillis: number
    }
  | {
      readonly service: "keys"
      readonly namespace: string
      readonly claimId: string
      readonly verb: "complete"
      readonly items: ReadonlyArray<Protocol.KeyCompletion>
      readonly retentionMillis: number
    }
  | {
      readonly service: "keys"
      readonly namespace: string
      readonly claimId: string
      readonly verb: "release"
      readonly keys?: ReadonlyArray<string> | undefined
    }
  | {
      readonly service: "keys"
      readonly verb: "renew"
      readonly renewals: ReadonlyArray<KeyClaimRef & { readonly leaseMillis: number }>
      /** Whether a claim's keys may be in several shards, of which the answer tells the earliest end. */
      readonly inShards: boolean
    }
  | {
      readonly service: "keys"
      readonly verb: "lookup"
      readonly namespace: string
      readonly keys: ReadonlyArray<string>
    }

/** A line of a record: a call that begins, or the answer to one that began. */
export type RecordLine =
  | {
      readonly number: number
      readonly caller: string
      readonly start: number
      readonly from: number
      readonly begun: Begun
    }
  | {
      readonly number: number
      readonly caller: string
      readonly end: number
      readonly to: number
      readonly answer: unknown
    }

/** Where a recorder writes to. */
export interface Recorder {
  /** Who calls, for people; different for each process. */
  readonly caller: string
  /** Called at once, in the middle of a call: it must be quick. */
  readonly write: (line: RecordLine) => void
}

/** One clock for all processes of a machine, in milliseconds; it never steps. */
const monotonicMillis = (): number => Number(process.hrtime.bigint()) / 1e6

interface Noting {
  readonly note: <A, E>(
    begun: Begun,
    call: Effect.Effect<A, E>,
    answerOf: (answer: A) => unknown
  ) => Effect.Effect<A, E>
}

const makeNoting = ({ caller, write }: Recorder): Noting => {
  let count = 0
  return {
    note: (begun, call, answerOf) =>
      Effect.suspend(() => {
        const number = count++
        write({ number, caller, start: monotonicMillis(), from: Date.now(), begun })
        const ended = (answer: unknown): void =>
          write({ number, caller, end: monotonicMillis(), to: Date.now(), answer })
        return Effect.tapError(
          Effect.tap(call, (answer) => Effect.sync(() => ended(answerOf(answer)))),
          (error) =>
            Effect.sync(() => {
              // of any other failure it is not known whether the call took effect, or still will
              if ((error as { readonly _tag?: string })._tag === "ClaimIdReused") ended("ClaimIdReused")
            })
        )
      })
  }
}

const flat = (ranges: OffsetRanges.OffsetRanges): ReadonlyArray<number> => ranges.flat

const claimAnswer = (answer: Protocol.OffsetClaimAnswer) => ({
  granted: flat(answer.granted),
  token: answer.token,
  until: answer.until,
  completed: flat(answer.completed),
  held: answer.held.map(({ owner, ranges, until }) => ({ ranges: flat(ranges), until, owner }))
})

/** The same store, each call on it noted, save those of operators. */
export const recordOffsetStore = (store: OffsetStoreService, recorder: Recorder): OffsetStoreService => {
  const { note } = makeNoting(recorder)
  const onStream = (name: string, call: StreamCall): Begun => ({ service: "stream", name, call })
  return {
    ...store,
    claim: (stream, ranges, terms) => {
      const { claimId, leaseMillis } = terms
      const begun = onStream(stream, { verb: "claim", claimId, ranges: flat(ranges), leaseMillis })
      return note(begun, store.claim(stream, ranges, terms), claimAnswer)
    },
    complete: (claim, ranges) => {
      const begun = onStream(claim.stream, { verb: "complete", claimId: claim.claimId, ranges: flat(ranges) })
      return note(begun, store.complete(claim, ranges), (answer) => ({
        completed: flat(answer.completed),
        alreadyCompleted: flat(answer.alreadyCompleted),
        leaseLost: flat(answer.leaseLost)
      }))
    },
    claimOffset: (stream, offset, terms) => {
      const { claimId, leaseMillis } = terms
      const one = [offset, offset + 1]
      const begun = onStream(stream, { verb: "claim", claimId, ranges: one, leaseMillis })
      return note(begun, store.claimOffset(stream, offset, terms), (answer) => {
        if (answer === undefined) return "ClaimIdReused"
        return {
          granted: answer._tag === "Claimed" ? one : [],
          completed: answer._tag === "Completed" ? one : [],
          held: answer._tag === "InFlight" ? [{ ranges: one, until: answer.until, owner: answer.owner }] : [],
          ...(answer._tag === "Claimed" ? { token: answer.token, until: answer.until } : {})
        }
      })
    },
    completeOffset: (claim, offset) => {
      const one = [offset, offset + 1]
      const begun = onStream(claim.stream, { verb: "complete", claimId: claim.claimId, ranges: one })
      return note(begun, store.completeOffset(claim, offset), (answer) => ({
        completed: answer === "Completed" ? one : [],
        alreadyCompleted: answer === "AlreadyCompleted" ? one : [],
        leaseLost: answer === "LeaseLost" ? one : []
      }))
    },
    release: (claim, ranges) => {
      const begun = onStream(claim.stream, {
        verb: "release",
        claimId: claim.claimId,
        ranges: ranges && flat(ranges)
      })
      return note(begun, store.release(claim, ranges), () => "released")
    },
    renew: (renewals) =>
      note({ service: "streams", verb: "renew", renewals }, store.renew(renewals), (answers) =>
        answers.map((until) => until ?? "LeaseLost")
      ),
    annotate: (notes) =>
      note({ service: "streams", verb: "annotate", notes }, store.annotate(notes), (answers) =>
        answers.map((noted) => (noted ? "noted" : "LeaseLost"))
      ),
    progress: (stream) =>
      note(onStream(stream, { verb: "progress" }), store.progress(stream), (progress) =>
        progress === undefined
          ? "nothing"
          : { completed: flat(progress.completed), watermark: progress.watermark, note: progress.note }
      )
  }
}

/** The same store, each call on it noted, save those of operators. Fingerprints are not noted: give none. */
export const recordIdempotencyStore = (
  store: IdempotencyStoreService,
  recorder: Recorder
): IdempotencyStoreService => {
  const { note } = makeNoting(recorder)
  return {
    ...store,
    claim: (namespace, items, terms) => {
      const { claimId, leaseMillis } = terms
      const keys = items.map(({ key }) => key)
      const begun: Begun = { service: "keys", namespace, claimId, verb: "claim", keys, leaseMillis }
      return note(begun, store.claim(namespace, items, terms), (answers) => answers)
    },
    complete: (claim, items, options) => {
      const retentionMillis = options?.retentionMillis ?? store.retentionMillis
      const begun: Begun = { service: "keys", ...claim, verb: "complete", items, retentionMillis }
      return note(begun, store.complete(claim, items, options), (answers) => answers)
    },
    release: (claim, keys) =>
      note(
        { service: "keys", ...claim, verb: "release", keys },
        store.release(claim, keys),
        () => "released"
      ),
    renew: (renewals) =>
      note(
        { service: "keys", verb: "renew", renewals, inShards: store.shardOf !== undefined },
        store.renew(renewals),
        (answers) => answers.map((until) => until ?? "LeaseLost")
      ),
    lookup: (namespace, keys) =>
      note(
        { service: "keys", verb: "lookup", namespace, keys },
        store.lookup(namespace, keys),
        (answers) => answers
      )
  }
}

type Ended = Extract<RecordLine, { readonly answer: unknown }>
type Times = Pick<RecordedCall, "caller" | "start" | "end" | "from" | "to" | "isOptional">

/** The calls on single streams and keys that one call on a store was. */
const takenApart = (
  begun: Begun,
  times: Times,
  answer: unknown,
  keysOfClaims: ReadonlyMap<string, ReadonlyArray<string>>
): ReadonlyArray<RecordedCall> => {
  const answered = <Call>(call: Call, one: unknown): Call =>
    one === undefined ? call : { ...call, answer: one }
  const list = answer as ReadonlyArray<unknown> | undefined
  // a key that can't be any was not asked for
  const isInvalid = (index: number): boolean =>
    (list?.[index] as { readonly _tag?: string } | undefined)?._tag === "Invalid"
  const onKey = (namespace: string, key: string, call: KeyCall): RecordedCall => ({
    ...times,
    service: "key",
    name: keyName(namespace, key),
    call
  })
  if (begun.service === "stream") return [{ ...times, ...begun, call: answered(begun.call, answer) }]
  if (begun.service === "streams") {
    const onStream = (name: string, call: StreamCall): RecordedCall => ({
      ...times,
      service: "stream",
      name,
      call
    })
    return begun.verb === "renew"
      ? begun.renewals.map(({ claimId, leaseMillis, stream }, index) =>
          onStream(stream, answered({ verb: "renew" as const, claimId, leaseMillis }, list?.[index]))
        )
      : begun.notes.map(({ claimId, note, stream }, index) =>
          onStream(stream, answered({ verb: "annotate" as const, claimId, note }, list?.[index]))
        )
  }
  switch (begun.verb) {
    case "claim": {
      const { claimId, leaseMillis } = begun
      // of equal keys only the first can be had
      return begun.keys.flatMap((key, index) =>
        begun.keys.indexOf(key) < index || isInvalid(index)
          ? []
          : [
              onKey(
                begun.namespace,
                key,
                answered(
                  { verb: "claim" as const, claimId, leaseMillis },
                  answer === "ClaimIdReused" ? answer : list?.[index]
                )
              )
            ]
      )
    }
    case "complete": {
      const { claimId, retentionMillis } = begun
      return begun.items.flatMap(({ key, result }, index) =>
        begun.items.findIndex((item) => item.key === key) < index || isInvalid(index)
          ? []
          : [
              onKey(
                begun.namespace,
                key,
                answered({ verb: "complete" as const, claimId, retentionMillis, result }, list?.[index])
              )
            ]
      )
    }
    case "release": {
      const keys = begun.keys ?? keysOfClaims.get(begun.claimId) ?? []
      return keys.map((key) =>
        onKey(begun.namespace, key, answered({ verb: "release" as const, claimId: begun.claimId }, answer))
      )
    }
    case "renew":
      return begun.renewals.flatMap(({ claimId, leaseMillis, namespace }, index) => {
        const keys = keysOfClaims.get(claimId) ?? []
        const isAlone = keys.length === 1
        return keys.map((key) =>
          onKey(
            namespace,
            key,
            answered(
              { verb: "renew" as const, claimId, leaseMillis, isAlone, inShards: begun.inShards },
              list?.[index]
            )
          )
        )
      })
    case "lookup":
      return begun.keys.flatMap((key, index) =>
        isInvalid(index)
          ? []
          : [onKey(begun.namespace, key, answered({ verb: "lookup" as const }, list?.[index]))]
      )
  }
}

/** The history that lines of one or more recorders tell: each call taken apart by streams and keys. */
export const historyOf = (lines: ReadonlyArray<RecordLine>): History => {
  const ends = new Map<string, Ended>()
  const keysOfClaims = new Map<string, ReadonlyArray<string>>()
  for (const line of lines) {
    if ("answer" in line) ends.set(`${line.caller} ${line.number}`, line)
    else if (line.begun.service === "keys" && line.begun.verb === "claim") {
      keysOfClaims.set(line.begun.claimId, [...new Set(line.begun.keys)])
    }
  }
  return lines.flatMap((line) => {
    if (!("begun" in line)) return []
    const end = ends.get(`${line.caller} ${line.number}`)
    const times = {
      caller: line.caller,
      start: line.start,
      from: line.from,
      end: end?.end ?? Number.POSITIVE_INFINITY,
      to: end?.to ?? Number.POSITIVE_INFINITY,
      isOptional: end === undefined
    }
    return takenApart(line.begun, times, end?.answer, keysOfClaims)
  })
}
