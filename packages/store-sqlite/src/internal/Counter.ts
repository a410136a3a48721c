import type { StatementSync } from "node:sqlite"
import type { Connection } from "./Connection.ts"

/** A number in the file: read at most once, and written at most once, in a transaction. */
export class Counter {
  private readonly name: string
  private readonly select: StatementSync
  private readonly update: StatementSync
  private current: number | undefined
  private stored = 0

  constructor(connection: Connection, name: string) {
    const { db } = connection
    this.name = name
    this.select = db.prepare("SELECT value FROM tidemark_counters WHERE name = ?")
    this.update = db.prepare("UPDATE tidemark_counters SET value = ? WHERE name = ?")
    connection.join({
      flush: () => {
        if (this.current === undefined || this.current === this.stored) return
        this.update.run(this.current, name)
        this.stored = this.current
      },
      // other processes may change it from now on
      ended: () => {
        this.current = undefined
      }
    })
  }

  get value(): number {
    if (this.current === undefined) {
      this.stored = (this.select.get(this.name) as { value: number }).value
      this.current = this.stored
    }
    return this.current
  }

  set value(value: number) {
    this.current = value
  }
}
