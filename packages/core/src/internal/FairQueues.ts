/** One queue a name: first come, first served, within this process. */
import { Effect } from "effect"

/** A place in a queue. Whoever has one must `leave` it, whether its turn came or not. */
export interface Place {
  /** Whether it is our turn. */
  readonly isMine: () => boolean
  /** Succeeds when it is our turn; fails when patience ends before. */
  readonly turn: <E>(patienceMillis: number, tooLate: () => E) => Effect.Effect<void, E>
  /** Gives the place up: where it was our turn, the next in the queue has it now. */
  readonly leave: () => void
}

export class FairQueues {
  /** A name is here while somebody has its turn; the waiters are in the order in which they came. */
  private readonly queues = new Map<string, Array<() => void>>()

  /** Takes the next place. Synchronous, so that an interruption can't come between the place and who has to leave it. */
  enter(name: string): Place {
    const queue = this.queues.get(name)
    let mine = queue === undefined
    let left = false
    let wake = (): void => {}
    const called = (): void => {
      mine = true
      wake()
    }
    if (queue === undefined) this.queues.set(name, [])
    else queue.push(called)
    const turn = Effect.callback<void>((resume) => {
      if (mine) resume(Effect.void)
      else wake = () => resume(Effect.void)
    })
    return {
      isMine: () => mine,
      turn: (patienceMillis, tooLate) =>
        Effect.suspend(() => {
          if (mine) return Effect.void
          if (patienceMillis === 0) return Effect.fail(tooLate())
          if (!Number.isFinite(patienceMillis)) return turn
          return Effect.timeoutOrElse(turn, {
            duration: patienceMillis,
            orElse: () => Effect.fail(tooLate())
          })
        }),
      leave: () => {
        if (left) return
        left = true
        if (mine) this.next(name)
        else if (queue !== undefined) queue.splice(queue.indexOf(called), 1)
      }
    }
  }

  private next(name: string): void {
    const next = this.queues.get(name)?.shift()
    if (next === undefined) this.queues.delete(name)
    else next()
  }
}
