/**
 * What really happened: each effect is a line in a file of the process that had it, written before its handler ends.
 * No tracker can read it, and no death takes anything out of it.
 */
import { closeSync, openSync, readdirSync, readSync, writeSync } from "node:fs"
import { join } from "node:path"

/** An effect, in the order in which its process had them. */
export interface Effect {
  readonly member: string
  readonly value: number
  readonly key: string
  readonly partition: number
  readonly offset: number
  readonly token: number
  /** Milliseconds since the epoch. */
  readonly at: number
}

/** Appends to the ledger of one process. */
export const openLedger = (folder: string, member: string): ((effect: Omit<Effect, "member">) => void) => {
  const file = openSync(join(folder, `${member}.ledger`), "a")
  return ({ at, key, offset, partition, token, value }) => {
    writeSync(file, `${value} ${key} ${partition} ${offset} ${token} ${at}\n`)
  }
}

/** Reads the ledgers of a folder as they grow. */
export class LedgerReader {
  readonly effects: Array<Effect> = []
  /** How often each value took effect. */
  readonly times = new Map<number, number>()
  private readonly folder: string
  private readonly files = new Map<string, { readonly file: number; rest: string }>()
  private readonly piece = Buffer.alloc(1 << 16)

  constructor(folder: string) {
    this.folder = folder
  }

  /** Takes in what was written since the last time. */
  read(): void {
    for (const name of readdirSync(this.folder)) {
      if (!name.endsWith(".ledger") || this.files.has(name)) continue
      this.files.set(name, { file: openSync(join(this.folder, name), "r"), rest: "" })
    }
    for (const [name, source] of this.files) {
      const member = name.slice(0, -".ledger".length)
      for (;;) {
        const length = readSync(source.file, this.piece)
        if (length === 0) break
        const lines = (source.rest + this.piece.toString("latin1", 0, length)).split("\n")
        source.rest = lines.pop() ?? ""
        for (const line of lines) this.take(member, line)
      }
    }
  }

  close(): void {
    for (const { file } of this.files.values()) closeSync(file)
  }

  private take(member: string, line: string): void {
    const [value, key, partition, offset, token, at] = line.split(" ")
    this.times.set(Number(value), (this.times.get(Number(value)) ?? 0) + 1)
    this.effects.push({
      member,
      value: Number(value),
      key,
      partition: Number(partition),
      offset: Number(offset),
      token: Number(token),
      at: Number(at)
    })
  }
}
