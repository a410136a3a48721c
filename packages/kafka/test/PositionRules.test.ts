import fc from "fast-check"
import { describe, expect, it } from "vitest"
import {
  type CommitHistory,
  decide,
  epochOf,
  type Findings,
  metadata,
  othersCommit,
  readNote,
  resumeAtCommit,
  writeNote
} from "../src/PositionRules.ts"

const log = { low: 0, high: 1_000 }
const nothing: Findings = { progress: undefined, commit: undefined, log, durable: true, start: "earliest" }
const stored = (watermark: number, epoch = 0, highest = watermark) => ({ watermark, highest, epoch })
const committing = (history: Partial<CommitHistory> = {}) => ({
  note: writeNote({ replaces: undefined, landmark: undefined, ...history })
})
const landmark = { offset: 49, timestampMillis: 1_700_000_000_000 }
const ours = (offset: number, epoch = 0) => ({ offset, metadata: metadata(epoch) })
const foreign = (offset: number, text: string | undefined = "") => ({ offset, metadata: text })

const begin = (row: string, claimFrom: number, ...passed: ReadonlyArray<object>) => ({
  _tag: "Begin",
  row,
  claimFrom,
  passed
})

const rows: ReadonlyArray<readonly [found: string, findings: Findings, decision: object]> = [
  ["nothing, start earliest", nothing, begin("new", 0)],
  [
    "nothing, start earliest, the log's beginning removed",
    { ...nothing, log: { low: 40, high: 90 } },
    begin("new", 40)
  ],
  ["nothing, start latest", { ...nothing, start: "latest" }, begin("new", 1_000)],
  ["another client's commit", { ...nothing, commit: foreign(70) }, begin("migrated", 70)],
  [
    "another client's commit without metadata",
    { ...nothing, commit: foreign(70, undefined) },
    begin("migrated", 70)
  ],
  [
    "another client's commit, with start latest",
    { ...nothing, start: "latest", commit: foreign(70) },
    begin("migrated", 70)
  ],
  [
    "another client's commit below the log",
    { ...nothing, log: { low: 90, high: 100 }, commit: foreign(70) },
    begin("migrated", 70, { why: "lost-to-retention", from: 70, to: 90 })
  ],
  [
    "our commit, and a durable store that knows nothing",
    { ...nothing, commit: ours(70) },
    { _tag: "StoreLost", committed: 70 }
  ],
  [
    "our commit, and a store that forgets",
    { ...nothing, durable: false, commit: ours(70) },
    begin("store-empty", 70)
  ],
  ["progress, no commit", { ...nothing, progress: stored(50) }, begin("known", 50)],
  ["progress, our commit at it", { ...nothing, progress: stored(50), commit: ours(50) }, begin("known", 50)],
  [
    "progress, our commit behind it",
    { ...nothing, progress: stored(50), commit: ours(20) },
    begin("known", 50)
  ],
  [
    "our commit ahead, of the same epoch: the store lost writes",
    { ...nothing, progress: stored(50), commit: ours(80) },
    begin("store-behind", 50, { why: "lost-writes", from: 50, to: 80 })
  ],
  [
    "our commit ahead, of an older epoch: an operator has rewound",
    { ...nothing, progress: stored(50, 2), commit: ours(80, 1) },
    begin("known", 50)
  ],
  [
    "our commit behind, of an older epoch: an operator has skipped",
    { ...nothing, progress: stored(50, 2), commit: ours(20, 1) },
    begin("known", 50)
  ],
  [
    "our commit behind, of a newer epoch: the store lost a rewind",
    { ...nothing, progress: stored(50, 1), commit: ours(20, 3) },
    { _tag: "AdoptEpoch", act: "rewind", position: 20, epochs: 2 }
  ],
  [
    "our commit ahead, of a newer epoch: the store lost a skip",
    { ...nothing, progress: stored(50, 1), commit: ours(80, 2) },
    { _tag: "AdoptEpoch", act: "skip", position: 80, epochs: 1 }
  ],
  [
    "another client's commit ahead",
    { ...nothing, progress: stored(50), commit: foreign(80) },
    begin("overtaken", 50, { why: "foreign-commit", from: 50, to: 80 })
  ],
  [
    "another client's commit behind",
    { ...nothing, progress: stored(50), commit: foreign(20) },
    begin("known", 50)
  ],
  [
    "retention overtook the store",
    { ...nothing, progress: stored(50), log: { low: 60, high: 100 } },
    begin("known", 50, { why: "lost-to-retention", from: 50, to: 60 })
  ],
  [
    "another client's commit ahead, and retention ahead of both",
    { ...nothing, progress: stored(50), commit: foreign(70), log: { low: 90, high: 100 } },
    begin(
      "overtaken",
      50,
      { why: "foreign-commit", from: 50, to: 70 },
      { why: "lost-to-retention", from: 70, to: 90 }
    )
  ],
  [
    "another client's commit behind, after ours: an operator's reset",
    { ...nothing, progress: { ...stored(50, 2), ...committing() }, commit: foreign(20) },
    { _tag: "Commit", why: "reset", position: 20, epoch: 3, watermark: 50 }
  ],
  [
    "another client's commit ahead, after ours: an operator's reset",
    { ...nothing, progress: { ...stored(50, 2), ...committing({ replaces: 10 }) }, commit: foreign(80) },
    { _tag: "Commit", why: "reset", position: 80, epoch: 3, watermark: 50 }
  ],
  [
    "another client's commit where we stand, after ours",
    { ...nothing, progress: { ...stored(50, 2), ...committing() }, commit: foreign(50) },
    { _tag: "Commit", why: "reset", position: 50, epoch: 2, watermark: 50 }
  ],
  [
    "another client's commit where we stand, after ours, and completed above the log's end",
    {
      ...nothing,
      progress: { ...stored(50, 2, 120), ...committing() },
      commit: foreign(50),
      log: { low: 0, high: 100 }
    },
    { _tag: "Commit", why: "reset", position: 50, epoch: 3, watermark: 50 }
  ],
  [
    "another client's commit that ours was about to replace",
    { ...nothing, progress: { ...stored(50), ...committing({ replaces: 20 }) }, commit: foreign(20) },
    begin("known", 50)
  ],
  [
    "our commit, of a newer epoch, and completed above the log's end",
    { ...nothing, progress: stored(50, 0, 120), commit: ours(70, 1), log: { low: 0, high: 100 } },
    { _tag: "AdoptEpoch", act: "rewind", position: 70, epochs: 1 }
  ],
  [
    "our commit gone, and no record to know the log by",
    { ...nothing, progress: { ...stored(50), ...committing() } },
    begin("known", 50)
  ],
  [
    "our commit gone: look at the log",
    { ...nothing, progress: { ...stored(50), ...committing({ landmark }) } },
    { _tag: "Look", offset: 49 }
  ],
  [
    "our commit gone, and the log is the same",
    { ...nothing, progress: { ...stored(50), ...committing({ landmark }) }, seen: landmark },
    begin("known", 50)
  ],
  [
    "our commit gone, and the log has another record there",
    {
      ...nothing,
      progress: { ...stored(50), ...committing({ landmark }) },
      seen: { offset: 49, timestampMillis: 5 }
    },
    { _tag: "LogWentBack", highest: 50, end: 1_000, changed: { ...landmark, nowMillis: 5 } }
  ],
  [
    "our commit gone, and the log has no record there",
    {
      ...nothing,
      progress: { ...stored(50), ...committing({ landmark }) },
      seen: { offset: 49, timestampMillis: undefined }
    },
    { _tag: "LogWentBack", highest: 50, end: 1_000, changed: { ...landmark, nowMillis: undefined } }
  ],
  [
    "our commit gone, and the log begins above all that was completed",
    { ...nothing, progress: { ...stored(50), ...committing({ landmark }) }, log: { low: 60, high: 100 } },
    begin("known", 50, { why: "lost-to-retention", from: 50, to: 60 })
  ],
  [
    "our commit gone, and the record that the log was known by rewound over",
    { ...nothing, progress: { ...stored(40), ...committing({ landmark }) } },
    begin("known", 40)
  ],
  [
    "completed above the log's end",
    { ...nothing, progress: stored(50, 0, 101), log: { low: 0, high: 100 } },
    { _tag: "LogWentBack", highest: 101, end: 100, changed: undefined }
  ],
  [
    "committed above the log's end",
    { ...nothing, commit: ours(101), log: { low: 0, high: 100 } },
    { _tag: "LogWentBack", highest: 101, end: 100, changed: undefined }
  ],
  [
    "committed above the log's end, before an operator's act",
    { ...nothing, progress: stored(50, 1), commit: ours(101), log: { low: 0, high: 100 } },
    begin("known", 50)
  ],
  [
    "reset above the log's end",
    {
      ...nothing,
      progress: { ...stored(50), ...committing() },
      commit: foreign(101),
      log: { low: 0, high: 100 }
    },
    { _tag: "LogWentBack", highest: 101, end: 100, changed: undefined }
  ],
  ["completed to the log's end", { ...nothing, progress: stored(1_000) }, begin("known", 1_000)]
]

describe("PositionRules", () => {
  it.each(rows)("%s", (_, findings, decision) => {
    expect(decide(findings)).toEqual(decision)
  })

  it("resumes at the commit where the operator says so", () => {
    expect(resumeAtCommit(70, 0)).toEqual(begin("store-empty", 70))
    expect(resumeAtCommit(70, 90)).toEqual(
      begin("store-empty", 70, { why: "lost-to-retention", from: 70, to: 90 })
    )
  })

  it("knows its own metadata, and no other's", () => {
    expect(epochOf(metadata(0))).toBe(0)
    expect(epochOf(metadata(12))).toBe(12)
    for (const other of [
      undefined,
      "",
      "tidemark",
      "tidemark:1:",
      "tidemark:1:-1",
      "tidemark:2:3",
      "tidemark:1:1 "
    ])
      expect(epochOf(other)).toBeUndefined()
  })

  it("reads the notes that it writes, and no other's", () => {
    const offset = fc.maxSafeNat()
    const history: fc.Arbitrary<CommitHistory> = fc.record({
      replaces: fc.option(offset, { nil: undefined }),
      landmark: fc.option(fc.record({ offset, timestampMillis: fc.maxSafeInteger() }), { nil: undefined })
    })
    fc.assert(
      fc.property(history, (written) => {
        const note = writeNote(written)
        expect(Buffer.byteLength(note)).toBeLessThanOrEqual(256)
        expect(readNote(note)).toEqual(written)
      })
    )
    for (const other of [undefined, othersCommit, "", "commits", "tidemark:1 commits ", "tidemark:2 commits"])
      expect(readNote(other)).toBeUndefined()
  })

  it("never passes over what nobody completed, committed or removed", () => {
    const offset = fc.integer({ min: 0, max: 100 })
    const findings: fc.Arbitrary<Findings> = fc.record({
      progress: fc.option(
        fc
          .record({ watermark: offset, highest: offset, epoch: fc.integer({ min: 0, max: 2 }) })
          .map((found) => ({
            ...found,
            highest: Math.max(found.highest, found.watermark)
          })),
        { nil: undefined }
      ),
      commit: fc.option(
        fc.record({ offset, metadata: fc.constantFrom(undefined, "", metadata(0), metadata(1)) }),
        { nil: undefined }
      ),
      log: fc
        .tuple(offset, offset)
        .map(([one, other]) => ({ low: Math.min(one, other), high: Math.max(one, other) })),
      durable: fc.boolean(),
      start: fc.constant("earliest" as const)
    })
    fc.assert(
      fc.property(findings, (found) => {
        const decision = decide(found)
        if (decision._tag !== "Begin") return
        const { commit, log, progress } = found
        let position = decision.claimFrom
        for (const { from, to } of decision.passed) {
          expect(from).toBe(position)
          expect(to).toBeGreaterThan(from)
          position = to
        }
        expect(decision.claimFrom).toBe(progress?.watermark ?? decision.claimFrom)
        expect(position).toBeGreaterThanOrEqual(log.low)
        expect(position).toBeLessThanOrEqual(Math.max(log.low, commit?.offset ?? 0, progress?.watermark ?? 0))
      }),
      { numRuns: 1_000 }
    )
  })
})
