import type { ClaimSummary, KeySummary, StreamSummary } from "@tidemark/core"
import { Effect, Option, Stream } from "effect"
import type { Mutation } from "../referenceStore.ts"
import { onInspect, onOffsets, shifted } from "./shared.ts"

/** A list whose entries are told otherwise, or left out where nothing is told. */
const told = <A, E>(list: Stream.Stream<A, E>, tell: (entry: A) => A | undefined): Stream.Stream<A, E> =>
  Stream.flatMap(list, (entry) => Stream.fromIterable([tell(entry)].filter((one) => one !== undefined)))

const tellStreams = (tell: (entry: StreamSummary) => StreamSummary | undefined): Mutation =>
  onInspect((good) => ({
    streams: (asked) => told(good.streams(asked), tell)
  }))

const tellKeys = (tell: (entry: KeySummary) => KeySummary | undefined): Mutation =>
  onInspect((good) => ({ keys: (asked) => told(good.keys(asked), tell) }))

const tellClaims = (tell: (entry: ClaimSummary) => ClaimSummary | undefined): Mutation =>
  onInspect((good) => ({
    claims: (asked) => told(good.claims(asked), tell)
  }))

/** A list on a clock that goes wrong by so much. */
const atShiftedTime = <A, E>(millis: number, list: Stream.Stream<A, E>): Stream.Stream<A, E> =>
  Stream.unwrap(Effect.map(shifted(millis, Stream.runCollect(list)), Stream.fromIterable))

/** Page by page, where the next one begins after so many, however many of those are gone. */
const byCounting = <A, E>(list: Stream.Stream<A, E>): Stream.Stream<A, E> =>
  Stream.paginate(0, (from) =>
    Effect.map(Stream.runCollect(list), (all) => {
      const page = all.slice(from, from + 100)
      return [page, page.length < 100 ? Option.none() : Option.some(from + 100)] as const
    })
  )

/** Stores that each list in one way what they don't hold, or not what they hold. */
export const badInspects: Readonly<Record<string, Mutation>> = {
  "lists a stream that was forgotten": (good, data) => {
    const forgotten: Array<string> = []
    return {
      ...onOffsets((offsets) => ({
        forget: (stream) => {
          forgotten.push(stream)
          return offsets.forget(stream)
        }
      }))(good, data),
      inspect: {
        ...good.inspect,
        streams: (asked) =>
          Stream.concat(
            good.inspect.streams(asked),
            Stream.suspend(() =>
              Stream.fromIterable(
                forgotten.map(
                  (stream): StreamSummary => ({
                    stream,
                    origin: 0,
                    watermark: 0,
                    highest: 0,
                    gapCount: 0,
                    epoch: 0,
                    lastToken: 0,
                    liveClaims: 0,
                    touchedAt: 0
                  })
                )
              )
            )
          )
      }
    }
  },
  "lists no stream that is only skipped in": tellStreams((entry) => (entry.epoch > 0 ? undefined : entry)),
  "lists no stream without progress": tellStreams((entry) =>
    entry.watermark === entry.origin && entry.highest === entry.origin ? undefined : entry
  ),
  "counts gaps from the origin": tellStreams((entry) => ({
    ...entry,
    gapCount: entry.highest - entry.watermark
  })),
  "tells the highest completed offset, not one past it": tellStreams((entry) => ({
    ...entry,
    highest: Math.max(entry.origin, entry.highest - 1)
  })),
  "takes the origin for the watermark": tellStreams((entry) => ({ ...entry, watermark: entry.origin })),
  "tells no epoch": tellStreams((entry) => ({ ...entry, epoch: 0 })),
  "counts a claim whose lease is over": onInspect((good) => ({
    streams: (asked) => atShiftedTime(-1, good.streams(asked))
  })),
  "tells when a stream began": onInspect((good, data) => {
    const first = new Map<string, number>()
    return {
      streams: (asked) =>
        Stream.map(good.streams(asked), (entry) => {
          for (const [stream, at] of data.touched) if (!first.has(stream)) first.set(stream, at)
          return { ...entry, touchedAt: (first.get(entry.stream) ?? 0) - 301 }
        })
    }
  }),
  "lists all, however long untouched": onInspect((good) => ({ streams: () => good.streams(0) })),
  "calls a stream untouched a millisecond early": onInspect((good) => ({
    streams: (millis) => good.streams(Math.max(0, millis - 1))
  })),
  "calls a stream untouched a millisecond late": onInspect((good) => ({
    streams: (millis) => good.streams(millis === 0 ? 0 : millis + 1)
  })),
  "lists no keys that are held": tellKeys((entry) => (entry.status._tag === "InFlight" ? undefined : entry)),
  "lists no keys that are completed": tellKeys((entry) =>
    entry.status._tag === "Completed" ? undefined : entry
  ),
  "lists keys for a millisecond too long": onInspect((good) => ({
    keys: (asked) => atShiftedTime(-1, good.keys(asked))
  })),
  "lists keys for a millisecond too short": onInspect((good) => ({
    keys: (asked) => atShiftedTime(1, good.keys(asked))
  })),
  "lists the keys of all namespaces": onInspect((good) => ({ keys: () => good.keys(undefined) })),
  "lists no keys where no namespace is named": onInspect((good) => ({
    keys: (namespace) => (namespace === undefined ? Stream.empty : good.keys(namespace))
  })),
  "takes an empty result for none": tellKeys((entry) =>
    entry.status._tag === "Completed"
      ? { ...entry, status: { ...entry.status, result: entry.status.result || undefined } }
      : entry
  ),
  "tells a retention that is none": tellKeys((entry) =>
    entry.status._tag === "Completed" ? { ...entry, status: { ...entry.status, until: 0 } } : entry
  ),
  "takes the claim's id for its owner": tellClaims((entry) => ({ ...entry, owner: entry.claimId })),
  "counts what is completed as held": onInspect((good, data) => ({
    claims: (asked) =>
      Stream.map(good.claims(asked), (entry) =>
        entry.kind === "keys" && data.keys.claimCount > 0 ? { ...entry, held: entry.held + 1 } : entry
      )
  })),
  "counts what of a range is completed as held": tellClaims((entry) =>
    entry.held === 7 ? { ...entry, held: 10 } : entry
  ),
  "takes an open end for a large number": tellClaims((entry) =>
    entry.held === Number.POSITIVE_INFINITY ? { ...entry, held: Number.NaN } : entry
  ),
  "lists claims on keys only": tellClaims((entry) => (entry.kind === "offsets" ? undefined : entry)),
  "lists claims on positions only": tellClaims((entry) => (entry.kind === "keys" ? undefined : entry)),
  "lists the claims of all": onInspect((good) => ({ claims: () => good.claims(undefined) })),
  "lists a claim a millisecond too long": onInspect((good) => ({
    claims: (asked) => atShiftedTime(-1, good.claims(asked))
  })),
  "lists a claim a millisecond too short": onInspect((good) => ({
    claims: (asked) => atShiftedTime(1, good.claims(asked))
  })),
  "lists the first page only": onInspect((good) => ({
    streams: (asked) => Stream.take(good.streams(asked), 500),
    keys: (asked) => Stream.take(good.keys(asked), 500),
    claims: (asked) => Stream.take(good.claims(asked), 500)
  })),
  "leaves out the first of the second page": onInspect((good) => ({
    keys: (asked) =>
      Stream.flatMap(Stream.zipWithIndex(good.keys(asked)), ([entry, index]) =>
        Stream.fromIterable(index === 100 ? [] : [entry])
      )
  })),
  "goes on by counting": onInspect((good) => ({
    streams: (asked) => byCounting(good.streams(asked)),
    keys: (asked) => byCounting(good.keys(asked))
  })),
  "trims names": tellStreams((entry) => ({ ...entry, stream: entry.stream.trim() })),
  "tells namespaces in small letters": tellKeys((entry) => ({
    ...entry,
    namespace: entry.namespace.toLowerCase()
  })),
  "loses its list on a restart": (good, data) => {
    data.streams.clear()
    return good
  }
}
