/** One queue a name: first come, first served, within this process. */
import { Effect } from "effect"

export class FairQueues {
  /** A name is here while somebody has its turn; the waiters are in the order in which they came. */
  private readonly queues = new Map<string, Array<() => void>>()

  /** Succeeds when it is our turn; whoever entered must `leave`. Interrupted or too late, it leaves nothing behind. */
  enter<E>(name: string, patienceMillis: number, tooLate: () => E): Effect.Effect<void, E> {
    const turn = Effect.callback<void>((resume) => {
      const queue = this.queues.get(name)
      if (queue === undefined) {
        this.queues.set(name, [])
        resume(Effect.void)
        return
      }
      let mine = false
      const wake = (): void => {
        mine = true
        resume(Effect.void)
      }
      queue.push(wake)
      return Effect.suspend(() => {
        if (mine) return this.leave(name)
        const index = queue.indexOf(wake)
        if (index >= 0) queue.splice(index, 1)
        return Effect.void
      })
    })
    return Effect.suspend(() => {
      if (!this.queues.has(name)) {
        this.queues.set(name, [])
        return Effect.void
      }
      if (patienceMillis === 0) return Effect.fail(tooLate())
      if (!Number.isFinite(patienceMillis)) return turn
      return Effect.timeoutOrElse(turn, {
        duration: patienceMillis,
        orElse: () => Effect.fail(tooLate())
      })
    })
  }

  /** Ends our turn: the next in the queue has it now. */
  leave(name: string): Effect.Effect<void> {
    return Effect.sync(() => {
      const queue = this.queues.get(name)
      if (queue === undefined) return
      const next = queue.shift()
      if (next === undefined) this.queues.delete(name)
      else next()
    })
  }
}
