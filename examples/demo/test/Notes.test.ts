import { fork } from "node:child_process"
import { once } from "node:events"
import type { Readable } from "node:stream"
import { fileURLToPath } from "node:url"
import fc from "fast-check"
import { expect, test } from "vitest"
import { makeNoteReader, type Note, notesDescriptor } from "../src/Notes.ts"

const receipt = fc.record({ orderId: fc.string(), partition: fc.nat(100), offset: fc.nat() })
const atMillis = fc.double({ min: 0, max: 1e9, noNaN: true })
const notes = fc.array(
  fc.oneof<fc.MaybeWeightedArbitrary<Note>[]>(
    fc.record({ what: fc.constant("received"), atMillis, receipts: fc.array(receipt) }),
    fc.record({ what: fc.constant("begun"), atMillis, receipt }),
    fc.record({ what: fc.constant("effect"), atMillis, orderId: fc.string() }),
    fc.record({ what: fc.constant("marked"), atMillis, orderIds: fc.array(fc.string()) }),
    fc.record({ what: fc.constant("assigned"), partitions: fc.nat(100) }),
    fc.record({ what: fc.constant("failed"), message: fc.string() })
  )
)

const written = (given: ReadonlyArray<Note>): string =>
  given.map((note) => `${JSON.stringify(note)}\n`).join("")

/** The same text in pieces, cut at these places. */
const cutAt = (text: string, places: ReadonlyArray<number>): ReadonlyArray<string> => {
  const ends = places.map((place) => place % (text.length + 1)).sort((one, other) => one - other)
  return [...ends, text.length].map((end, index) => text.slice(ends[index - 1] ?? 0, end))
}

test("notes are read as they were written, in whatever pieces they arrive", () => {
  fc.assert(
    fc.property(notes, fc.array(fc.nat()), (given, places) => {
      const read: Array<Note> = []
      const take = makeNoteReader((note) => read.push(note))
      for (const piece of cutAt(written(given), places)) take(piece)
      expect(JSON.stringify(read)).toBe(JSON.stringify(given))
    })
  )
})

test("of a text that ends anywhere, all whole notes are read and nothing else", () => {
  fc.assert(
    fc.property(notes, fc.nat(), (given, place) => {
      const text = written(given)
      const part = text.slice(0, place % (text.length + 1))
      const read: Array<Note> = []
      makeNoteReader((note) => read.push(note))(part)
      const whole = part.split("\n").length - 1
      expect(JSON.stringify(read)).toBe(JSON.stringify(given.slice(0, whole)))
    })
  )
})

test("what a process wrote before it was killed is read after its death, though it was more than a pipe holds", async () => {
  const program = fork(fileURLToPath(new URL("programs/writesNotes.ts", import.meta.url)), [], {
    execArgv: ["--conditions=@tidemark/source"],
    stdio: ["ignore", "ignore", "inherit", "ipc", "pipe"]
  })
  const pipe = program.stdio[notesDescriptor] as Readable
  const effects: Array<string> = []
  const read = makeNoteReader((note) => {
    if (note.what === "effect") effects.push(note.orderId)
  })
  pipe.setEncoding("utf8").on("data", read)
  const [count] = (await once(program, "message")) as [number]
  program.kill("SIGKILL")
  const [code, signal] = await once(program, "close")
  expect([code, signal]).toEqual([null, "SIGKILL"])
  expect(effects).toEqual(Array.from({ length: count }, (_, index) => `order-${index}`))
})
