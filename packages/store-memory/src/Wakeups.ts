import { Effect } from "effect"

/** Who waits for what: a hint to ask again, and no more. Costs nothing while nobody waits. */
export class Wakeups {
  private readonly waiters = new Map<string, Set<() => void>>()

  /** Whether anybody waits for anything. */
  get any(): boolean {
    return this.waiters.size > 0
  }

  /** Succeeds at the next `wake` of that name, or at once where `ready` says that there is nothing to wait for. */
  wait(name: string, ready: () => boolean): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      if (ready()) {
        resume(Effect.void)
        return
      }
      const waiters = this.waiters.get(name) ?? new Set<() => void>()
      this.waiters.set(name, waiters)
      const wake = (): void => resume(Effect.void)
      waiters.add(wake)
      return Effect.sync(() => {
        waiters.delete(wake)
        if (waiters.size === 0 && this.waiters.get(name) === waiters) this.waiters.delete(name)
      })
    })
  }

  wake(name: string): void {
    const waiters = this.waiters.get(name)
    if (waiters === undefined) return
    this.waiters.delete(name)
    for (const wake of waiters) wake()
  }
}
