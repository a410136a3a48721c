import { execFileSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { describeWhere } from "@tidemark/test-servers/vitest"
import { Effect, Exit, Scope } from "effect"
import { expect } from "vitest"
import type { Connection } from "../src/internal/Connection.ts"
import { open } from "../src/internal/open.ts"

/** A folder of its own, removed with the Scope. */
export const temporaryFolder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "tidemark-sqlite-"))),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
)

/** Whether a file system can be mounted here: root in a container often may not. */
const canMount = (): boolean => {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return false
  const folder = mkdtempSync(join(tmpdir(), "tidemark-sqlite-"))
  try {
    execFileSync("mount", ["-t", "tmpfs", "tmpfs", folder], { stdio: "ignore" })
    execFileSync("umount", [folder])
    return true
  } catch {
    return false
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** A `describe` for tests that mount a file system. */
export const describeWhereMounting = (title: string, body: () => void): Promise<void> =>
  describeWhere(canMount(), "mounting", "takes Linux, and root that may mount")(title, body)

/** A file system in memory, of a size, at a folder that is there; until the Scope closes. */
export const mountMemory = (folder: string, size: string) =>
  Effect.acquireRelease(
    Effect.sync(() => execFileSync("mount", ["-t", "tmpfs", "-o", `size=${size}`, "tmpfs", folder])),
    () => Effect.sync(() => execFileSync("umount", [folder]))
  )

interface Process<P> {
  readonly connection: Connection
  readonly part: P
  readonly scope: Scope.Closeable
}

const tables = ["streams", "pages", "claims", "namespaces", "batches", "batch_keys", "keys", "parked"]

/** Two connections to one file, as two processes have them, with something made on each. */
export class Files<P> {
  private readonly filename: string
  private readonly make: (connection: Connection) => P
  private readonly processes: Array<Process<P>>

  constructor(folder: string, make: (connection: Connection) => P) {
    this.filename = join(folder, "two.db")
    this.make = make
    this.processes = [this.start(), this.start()]
  }

  process(index: number): Process<P> {
    return this.processes[index]
  }

  restart(index: number): void {
    this.stop(index)
    this.processes[index] = this.start()
  }

  clear(): void {
    const { db } = this.processes[0].connection
    for (const table of tables) db.exec(`DELETE FROM tidemark_${table}`)
    db.exec("UPDATE tidemark_counters SET value = 0")
    this.restart(0)
    this.restart(1)
  }

  checkIntegrity(): void {
    const { db } = this.processes[0].connection
    expect(db.prepare("PRAGMA integrity_check").all()).toEqual([{ integrity_check: "ok" }])
    // nothing points at what is not there, and nothing is left behind
    const orphans = {
      keys: "SELECT count(*) AS n FROM tidemark_keys WHERE batch NOT IN (SELECT id FROM tidemark_batches)",
      lists:
        "SELECT count(*) AS n FROM tidemark_batch_keys WHERE batch NOT IN (SELECT id FROM tidemark_batches)",
      batches:
        "SELECT count(*) AS n FROM tidemark_batches WHERE (keys IS NULL) <> (id IN (SELECT batch FROM tidemark_batch_keys))",
      pages: "SELECT count(*) AS n FROM tidemark_pages WHERE stream NOT IN (SELECT id FROM tidemark_streams)",
      claims:
        "SELECT count(*) AS n FROM tidemark_claims WHERE stream NOT IN (SELECT id FROM tidemark_streams)",
      held: `SELECT count(*) AS n FROM tidemark_batches b WHERE claim_id IS NOT NULL AND
        (held = 0 OR held <> (SELECT count(*) FROM tidemark_keys k WHERE k.batch = b.id))`,
      stalePages: `SELECT count(*) AS n FROM tidemark_pages JOIN tidemark_streams ON id = stream
        WHERE (page + pages) * 4096 <= watermark`
    }
    for (const [what, sql] of Object.entries(orphans))
      expect([what, db.prepare(sql).get()]).toEqual([what, { n: 0 }])
  }

  close(): void {
    this.stop(0)
    this.stop(1)
  }

  private start(): Process<P> {
    const scope = Effect.runSync(Scope.make())
    const options = {
      filename: this.filename,
      synchronous: "normal",
      lockTimeoutMillis: 1_000,
      maxBytes: undefined
    } as const
    const connection = Effect.runSync(Scope.provide(open(options), scope))
    return { connection, part: this.make(connection), scope }
  }

  private stop(index: number): void {
    Effect.runSync(Scope.close(this.processes[index].scope, Exit.void))
  }
}

export const withFiles = <P>(
  make: (connection: Connection) => P,
  use: (files: Files<P>) => void
): Effect.Effect<void> =>
  Effect.scoped(
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const files = yield* Effect.acquireRelease(
        Effect.sync(() => new Files(folder, make)),
        (opened) => Effect.sync(() => opened.close())
      )
      use(files)
    })
  )
