/** What goes to the scripts and comes back from them: see scripts/lib/ranges.lua for the form of ranges. */
import { OffsetRanges } from "@tidemark/core"

/** The differences of neighbouring bounds, as digits of six bits, the lowest first, the last one below 64. */
export const encodeRanges = ({ flat }: OffsetRanges.OffsetRanges): string => {
  let text = ""
  let before = 0
  for (let index = 0; index < flat.length; index++) {
    let value = flat[index] - before
    before = flat[index]
    while (value >= 64) {
      text += String.fromCharCode(64 + (value % 64))
      value = Math.floor(value / 64)
    }
    text += String.fromCharCode(value)
  }
  return text
}

/** Bounds from the form of {@link encodeRanges}; page numbers have the same one. */
export const decodeBounds = (text: string): Array<number> => {
  const flat: Array<number> = []
  let bound = 0
  let value = 0
  let scale = 1
  for (let index = 0; index < text.length; index++) {
    const digit = text.charCodeAt(index)
    if (digit < 64) {
      bound += value + digit * scale
      flat.push(bound)
      value = 0
      scale = 1
    } else {
      value += (digit - 64) * scale
      scale *= 64
    }
  }
  return flat
}

export const decodeRanges = (text: string): OffsetRanges.OffsetRanges =>
  OffsetRanges.fromSortedUnsafe(decodeBounds(text))

/** Leases and retentions in whole milliseconds, as Redis keeps time. */
export const wholeMillis = (millis: number): string => String(Math.ceil(millis))

/** A name as the hash tag of its keys: what has the same name lives in the same slot. */
export const hashTag = (name: string): string =>
  `{${name.replace(/[%{}]/g, (character) => encodeURIComponent(character))}}`

/** The name that {@link hashTag} was made of. */
export const nameInTag = (tag: string): string => tag.replace(/%(25|7B|7D)/g, decodeURIComponent)
