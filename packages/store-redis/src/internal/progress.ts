/** A stream's hash, read by the client: see scripts/lib/stream.lua and pages.lua for its form. */
import { OffsetRanges, type Protocol } from "@tidemark/core"
import { decodeBounds, decodeRanges } from "./wire.ts"

const page = 4_096
const bitmapBytes = 512

/** What is stored of a stream. */
export interface StoredStream {
  readonly fields: ReadonlyMap<string, Buffer>
  readonly claims: ReadonlyArray<Protocol.LiveClaim>
}

/** And when that was, by the clock of Redis. */
export interface ReadStream extends StoredStream {
  readonly now: number
}

type ProgressReply = [
  fields: Array<Buffer>,
  claims: Array<[id: Buffer, owner: Buffer, token: number, until: number, held: Buffer]>,
  now: number
]

/** What the script `progress` answers. */
export const readStream = (reply: unknown): ReadStream => {
  const [flat, claims, now] = reply as ProgressReply
  const fields = new Map<string, Buffer>()
  for (let index = 0; index < flat.length; index += 2) fields.set(flat[index].toString(), flat[index + 1])
  return {
    fields,
    now,
    claims: claims.map(([id, owner, token, until, held]) => ({
      claimId: id.toString(),
      owner: owner.toString(),
      token,
      until,
      ranges: decodeRanges(held.toString())
    }))
  }
}

export const numberIn = (fields: ReadonlyMap<string, Buffer>, field: string): number | undefined => {
  const value = fields.get(field)
  return value === undefined ? undefined : Number(value.toString())
}

/** The runs of a page, as offsets of the stream. */
const runsOf = (number: number, stored: Buffer): Array<[from: number, to: number]> => {
  const base = number * page
  const runs: Array<[number, number]> = []
  if (stored.length < bitmapBytes) {
    for (let at = 0; at < stored.length; at += 4) {
      runs.push([base + stored.readUInt16BE(at), base + stored.readUInt16BE(at + 2)])
    }
    return runs
  }
  let from = -1
  for (let bit = 0; bit <= page; bit++) {
    const present = bit < page && (stored[bit >> 3] & (1 << (bit & 7))) !== 0
    if (present && from < 0) from = bit
    if (!present && from >= 0) {
      runs.push([base + from, base + bit])
      from = -1
    }
  }
  return runs
}

/** All that is completed of a stream whose watermark is known: what a page holds below it does not count. */
const completedIn = (
  fields: ReadonlyMap<string, Buffer>,
  origin: number,
  watermark: number
): OffsetRanges.OffsetRanges => {
  const runs: Array<[number, number]> = []
  const full = fields.get("f")
  const bounds = full === undefined ? [] : decodeBounds(full.toString())
  for (let at = 0; at < bounds.length; at += 2) runs.push([bounds[at] * page, bounds[at + 1] * page])
  for (const [field, value] of fields) {
    if (/^\d+$/.test(field)) runs.push(...runsOf(Number(field), value))
  }
  const above = runs
    .filter(([, to]) => to > watermark)
    .map(([from, to]): [number, number] => [Math.max(from, watermark), to])
  if (watermark > origin) above.push([origin, watermark])
  return OffsetRanges.fromRanges(above)
}

/** How far a stream has come; `undefined` where nothing was ever claimed of it. */
export const readProgress = ({ claims, fields }: StoredStream): Protocol.Progress | undefined => {
  const origin = numberIn(fields, "o")
  if (origin === undefined) return undefined
  const watermark = numberIn(fields, "w") ?? origin
  const completed = completedIn(fields, origin, watermark)
  const highest = OffsetRanges.end(completed) ?? origin
  return {
    origin,
    watermark,
    highest,
    gapCount: highest - origin - OffsetRanges.size(completed),
    completed,
    epoch: numberIn(fields, "e") ?? 0,
    lastToken: numberIn(fields, "t") ?? 0,
    note: fields.get("n")?.toString(),
    claims: claims.map((claim) => ({ ...claim, ranges: OffsetRanges.subtract(claim.ranges, completed) }))
  }
}
