/** A call with its place among those of a {@link TimeLimit}. */
export class Timed {
  /** When it began, by `performance.now()`, in milliseconds. */
  readonly since: number
  /** The limit's own. */
  previous: Timed = this
  /** The limit's own. */
  next: Timed = this

  constructor(since = performance.now()) {
    this.since = since
  }
}

/**
 * Calls that may each take the same time: one timer serves all of them, so that a call costs none.
 *
 * @example
 * class Call extends Timed { ... }
 * const limit = new TimeLimit<Call>(5_000, (call) => call.fail("no answer"))
 * limit.watch(call) // and once it has been answered:
 * limit.forget(call)
 */
export class TimeLimit<Call extends Timed> {
  /** A ring of those that are open, from the newest to the oldest: `next` of this is the oldest. */
  private readonly open = new Timed(0)
  private timer: NodeJS.Timeout | undefined
  private readonly onOver: (call: Call) => void
  readonly millis: number

  /** @param onOver - called once for a call that is not forgotten after `millis`; it is forgotten then. */
  constructor(millis: number, onOver: (call: Call) => void) {
    this.millis = millis
    this.onOver = onOver
  }

  /** One that has just begun. */
  watch(call: Call): void {
    const { open } = this
    call.previous = open.previous
    call.next = open
    open.previous.next = call
    open.previous = call
    // one that lives on when all are answered; it keeps no process alive
    this.timer ??= setTimeout(this.look, this.millis).unref()
  }

  /** Also for one that is not watched any more. */
  forget(call: Call): void {
    call.previous.next = call.next
    call.next.previous = call.previous
    call.previous = call
    call.next = call
  }

  /** Watches no more. */
  close(): void {
    clearTimeout(this.timer)
    this.timer = undefined
    while (this.open.next !== this.open) this.forget(this.open.next as Call)
  }

  /** Gives up on those whose time is over, and looks again when that of the next one is. */
  private readonly look = (): void => {
    this.timer = undefined
    const endedBefore = performance.now() - this.millis
    while (this.open.next !== this.open) {
      const oldest = this.open.next as Call
      if (oldest.since > endedBefore) {
        this.timer ??= setTimeout(this.look, Math.ceil(oldest.since - endedBefore)).unref()
        return
      }
      this.forget(oldest)
      this.onOver(oldest)
    }
  }
}
