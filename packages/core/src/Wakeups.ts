import { Effect } from "effect"

/**
 * Who waits for what within this process: what a store's `awaitRelease` and `awaitSettled` are made of. A hint to ask
 * again, and no more. Costs nothing while nobody waits.
 *
 * @example
 * const wakeups = new Wakeups()
 * const awaitRelease = (stream: string) => wakeups.wait(stream, () => isFree(stream))
 * // and wherever something of the stream is given back:
 * wakeups.wake(stream)
 */
export class Wakeups {
  private readonly waiters = new Map<string, Set<() => void>>()

  /** Whether anybody waits for anything. */
  get any(): boolean {
    return this.waiters.size > 0
  }

  /** What is waited for. */
  get names(): ReadonlyArray<string> {
    return [...this.waiters.keys()]
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

  /** Wakes all who wait for that name; who waits again from then on is not meant. Answers whether anybody did. */
  wake(name: string): boolean {
    const waiters = this.waiters.get(name)
    if (waiters === undefined) return false
    this.waiters.delete(name)
    for (const wake of waiters) wake()
    return true
  }
}
