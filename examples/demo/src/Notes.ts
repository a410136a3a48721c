/**
 * What a consumer tells about itself, for the ledger and for the race that watches it. Between processes: a line of
 * JSON each, written to a pipe.
 */
import { writeSync } from "node:fs"

/** A record, as the broker delivers it. */
export interface Receipt {
  readonly orderId: string
  readonly partition: number
  readonly offset: number
}

/** Something that happened to orders, and when, in the machine's own time ({@link monotonicMillis}). */
export type OrderNote =
  /** The broker has handed over records. */
  | { readonly what: "received"; readonly atMillis: number; readonly receipts: ReadonlyArray<Receipt> }
  /** The tracker lets the work begin. */
  | { readonly what: "begun"; readonly atMillis: number; readonly receipt: Receipt }
  /** The work has had its effect: the payment is sent. */
  | { readonly what: "effect"; readonly atMillis: number; readonly orderId: string }
  /** The tracker's store has acknowledged that the orders are done. */
  | { readonly what: "marked"; readonly atMillis: number; readonly orderIds: ReadonlyArray<string> }

export type Note =
  | OrderNote
  /** How many partitions the consumer has now. */
  | { readonly what: "assigned"; readonly partitions: number }
  /** Why the consumer ends. */
  | { readonly what: "failed"; readonly message: string }

/** Takes a note; returns when it is safe from the consumer's death. */
export type Tell = (note: Note) => void

/** The pipe to which a consumer's process writes its notes. */
export const notesDescriptor = 4

/** Milliseconds since some moment in the past, the same one for all processes of this machine; never goes back. */
export const monotonicMillis = (): number => {
  const [seconds, nanoseconds] = process.hrtime()
  return seconds * 1_000 + nanoseconds / 1_000_000
}

/**
 * Writes notes to a pipe, each before it returns: what is written stays in the pipe when the writer is killed, as a
 * payment stays sent. Throws where nobody reads any more.
 */
export const tellThrough =
  (fileDescriptor: number): Tell =>
  (note) => {
    const line = Buffer.from(`${JSON.stringify(note)}\n`)
    for (let written = 0; written < line.length; ) written += writeSync(fileDescriptor, line, written)
  }

/** Reads what {@link tellThrough} wrote, piece by piece. A last line without its end was not written in time: no note. */
export const makeNoteReader = (onNote: (note: Note) => void): ((piece: string) => void) => {
  let rest = ""
  return (piece) => {
    const lines = (rest + piece).split("\n")
    rest = lines.pop() as string
    for (const line of lines) onNote(JSON.parse(line) as Note)
  }
}
