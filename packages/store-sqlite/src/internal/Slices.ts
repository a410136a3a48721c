/**
 * Long work in slices that keep below a bound, for a thread that others wait for. A slice is a transaction: many small
 * steps, and then a commit that takes the longer the more steps it has. Pure, save for the clock it is given.
 *
 * Before each step it is asked whether there is time for it and for the commit. A step is expected to take at most twice
 * as long as any of its slice and the one before, where what came earlier counts half with each slice; a commit, twice as
 * long as that of the slice before, in proportion where it has more steps. The first slice has one step, and each at most
 * twice the steps of the one before. So as long as a slice of one step keeps below the bound, and times do not more than
 * double, all of them do; and where the machine stood still for a moment, that is soon forgotten.
 */
const caution = 2

export class Slices {
  private readonly boundMillis: number
  private readonly nowMillis: () => number
  /** Of the slices before this one. */
  private worstBefore = 0
  private lastSteps = 0
  private lastCommit = 0

  constructor(boundMillis: number, nowMillis: () => number) {
    this.boundMillis = boundMillis
    this.nowMillis = nowMillis
  }

  /**
   * Runs a slice. `slice` asks before each step whether there is time for it, and commits.
   *
   * @returns how many steps it had, and what it answered.
   */
  run<A>(slice: (hasTime: () => boolean) => A): { readonly steps: number; readonly answer: A } {
    const from = this.nowMillis()
    const mostSteps = Math.max(1, 2 * this.lastSteps)
    let steps = 0
    let worst = 0
    let last = from
    const answer = slice(() => {
      const now = this.nowMillis()
      if (steps > 0) worst = Math.max(worst, now - last)
      last = now
      // one is done in any case, so that it comes to an end
      if (
        steps > 0 &&
        (steps === mostSteps || now - from + this.expected(worst, steps + 1) > this.boundMillis)
      )
        return false
      steps += 1
      return true
    })
    // a last step that nobody asked after counts as part of the commit
    if (steps > 0) {
      this.worstBefore = Math.max(worst, this.worstBefore / 2)
      this.lastSteps = steps
      this.lastCommit = this.nowMillis() - last
    }
    return { steps, answer }
  }

  /** How long one more step and the commit of all will take at most. */
  private expected(worst: number, steps: number): number {
    return (
      caution * (Math.max(worst, this.worstBefore) + this.lastCommit * Math.max(1, steps / this.lastSteps))
    )
  }
}
