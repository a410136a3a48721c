/**
 * Waiting for what is given back: woken at once by this process, and within some milliseconds by others. SQLite tells
 * cheaply whether another connection has committed something; it is asked only while somebody waits.
 */
import type { DatabaseSync } from "node:sqlite"
import { Wakeups } from "@tidemark/core"
import { Effect, Latch, type Scope } from "effect"

const askEveryMillis = 20

export class Watch {
  private readonly wakeups = new Wakeups()
  private readonly questions = new Map<string, () => boolean>()
  private readonly awaited = Latch.makeUnsafe(false)

  /** Watches what other processes commit, until the Scope closes. */
  static make(db: DatabaseSync): Effect.Effect<Watch, never, Scope.Scope> {
    const watch = new Watch()
    return Effect.as(Effect.forkScoped(watch.others(db)), watch)
  }

  /** Whether anybody waits for anything. */
  get any(): boolean {
    return this.wakeups.any
  }

  wake(name: string): void {
    this.questions.delete(name)
    this.wakeups.wake(name)
  }

  /** Succeeds when it is woken, or when `isReady` says so: asked at once, and when others have committed something. */
  wait(name: string, isReady: () => boolean): Effect.Effect<void> {
    // where the database can't tell, the verb that is asked again will say why
    const question = () => orElse(isReady, true)
    return this.wakeups.wait(name, () => {
      if (question()) return true
      // in one step with the answer: nobody may look in between, and find that nobody waits
      if (!this.questions.has(name)) this.questions.set(name, question)
      this.awaited.openUnsafe()
      return false
    })
  }

  private others(db: DatabaseSync): Effect.Effect<never> {
    const select = db.prepare("PRAGMA data_version")
    const version = (): unknown =>
      orElse(() => (select.get() as { data_version: number }).data_version, undefined)
    let seen = version()
    const look = Effect.sync(() => {
      const now = version()
      if (now !== seen) {
        seen = now
        this.askAll()
      }
      if (!this.wakeups.any) {
        this.questions.clear()
        this.awaited.closeUnsafe()
      }
    })
    return Effect.forever(
      this.awaited.await.pipe(Effect.andThen(Effect.sleep(askEveryMillis)), Effect.andThen(look))
    )
  }

  private askAll(): void {
    for (const name of this.wakeups.names) if (this.questions.get(name)?.() !== false) this.wake(name)
  }
}

const orElse = <A>(ask: () => A, otherwise: A): A => {
  try {
    return ask()
  } catch {
    return otherwise
  }
}
