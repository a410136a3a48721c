/**
 * The file where it was opened. SQLite goes on with a file that was moved or removed, and never looks whether another
 * has come into its place: what it acknowledges then, nobody who opens the path will find.
 */
import { type BigIntStats, statSync } from "node:fs"

/** How long what was seen is believed. */
const believedMillis = 1_000

export class Place {
  readonly file: string
  private readonly opened: BigIntStats | undefined
  private readonly nowMillis: () => number
  private lookedAt: number

  constructor(file: string, nowMillis: () => number = () => performance.now()) {
    this.file = file
    this.nowMillis = nowMillis
    this.opened = look(file)
    this.lookedAt = nowMillis()
  }

  /** Whether another file, or none, is there now; looks at most once in a second, as long as all is well. */
  get isLost(): boolean {
    const now = this.nowMillis()
    if (now - this.lookedAt < believedMillis) return false
    if (this.isLostNow) return true
    this.lookedAt = now
    return false
  }

  /** The same, looks now. */
  get isLostNow(): boolean {
    const found = look(this.file)
    return found === undefined || found.ino !== this.opened?.ino || found.dev !== this.opened.dev
  }
}

const look = (file: string): BigIntStats | undefined =>
  statSync(file, { bigint: true, throwIfNoEntry: false })
