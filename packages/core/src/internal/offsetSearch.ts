/** Finds the next offset that the pages above a watermark hold, or don't: for an offset from the watermark on. */
import { type OffsetDirectory, positionOf } from "./offsetDirectory.ts"
import { type OffsetPages, PAGE, pageOf } from "./offsetPages.ts"

/** The first offset from `offset` on that is in the pages; `limit` or more when there is none below it. */
export const nextPresent = (
  directory: OffsetDirectory,
  pages: OffsetPages,
  offset: number,
  limit: number
): number => {
  let page = pageOf(offset)
  let within = offset - page * PAGE
  if (!directory.locate(page)) {
    if (!directory.valid) return limit
    page = directory.start
    within = 0
  }
  let begin = page * PAGE
  while (begin < limit) {
    const payload = directory.payload
    if (payload >= 0) return begin + within
    const end = Math.min(PAGE, limit - begin)
    const found = pages.nextPresent(positionOf(payload), within, end)
    if (found < end) return begin + found
    if (!directory.next()) return limit
    begin = directory.start * PAGE
    within = 0
  }
  return limit
}

/** The first offset from `offset` on that is not in the pages; `limit` or more when there is none below it. */
export const nextMissing = (
  directory: OffsetDirectory,
  pages: OffsetPages,
  offset: number,
  limit: number
): number => {
  let page = pageOf(offset)
  if (!directory.locate(page)) return offset
  let within = offset - page * PAGE
  let begin = page * PAGE
  do {
    const payload = directory.payload
    if (payload >= 0) {
      page = payload
    } else {
      const end = Math.min(PAGE, limit - begin)
      const found = pages.nextMissing(positionOf(payload), within, end)
      if (found < end) return begin + found
      page += 1
    }
    begin = page * PAGE
    within = 0
  } while (begin < limit && directory.next() && directory.start === page)
  return begin
}
