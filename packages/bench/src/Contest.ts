/**
 * Comparing speeds on a machine that is busy with other things.
 *
 * An absolute time measured there says little: a neighbour or a page fault may double it. So contestants take turns
 * in slices of about a millisecond, in an order that rotates and turns round, each working on its own instance; what disturbs one
 * disturbs all. A pass is one such alternation from empty to full. Ratios are formed within a pass, of the sums over
 * its slices, so that what happens rarely (a table that grows, a collection of garbage) counts; of the passes the
 * median is told, with the least and the greatest.
 */

/** Does one slice; awaited where it gives a promise. */
export type Work<Input> = (input: Input, slice: number) => unknown

/** Work on what has to be closed: else its timers keep the process alive when all is measured. */
export interface Opened<Input> {
  readonly work: Work<Input>
  readonly close: () => Promise<void>
}

/** One who takes part. */
export interface Contestant<Input> {
  readonly name: string
  /** Makes a new instance, and gives what does one slice of the work on it. Not timed. */
  readonly start: () => Work<Input> | Promise<Work<Input> | Opened<Input>>
  /** Makes the input of a slice, for this contestant alone. Not timed. */
  readonly input: (slice: number) => Input
  /** Does the work once per so many slices of the others (default 1): for contestants that are much slower. */
  readonly everySlices?: number
  /**
   * Does so many times the operations of the others in a slice (default 1): for contestants that are much faster,
   * whose slice would else be over before it is warm, and be mostly the reading of the clock.
   */
  readonly times?: number
}

export interface ContestOptions<Input> {
  readonly contestants: ReadonlyArray<Contestant<Input>>
  readonly slices: number
  /** What the time of a slice is divided by. */
  readonly operationsPerSlice: number
  readonly passes: number
  /** Passes before those that count. Default: 2. */
  readonly warmups?: number
  readonly onPass?: (pass: number, of: number) => void
}

/** Median, least and greatest of some figures. */
export interface Spread {
  readonly median: number
  readonly min: number
  readonly max: number
}

/** The times of a contest. */
export interface Times {
  /** Nanoseconds per operation. */
  readonly nanos: (name: string) => Spread
  /** How many times the time of `denominator` the contestant `numerator` takes, pass by pass. */
  readonly ratio: (numerator: string, denominator: string) => Spread
}

export const spread = (values: ReadonlyArray<number>): Spread => {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >>> 1
  const median = sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
  return { median, min: sorted[0], max: sorted[sorted.length - 1] }
}

/** Runs a contest. */
export const contest = async <Input>(options: ContestOptions<Input>): Promise<Times> => {
  const { contestants, passes, warmups = 2 } = options
  const times = new Map<string, Array<number>>(contestants.map(({ name }) => [name, []]))
  // One instance of each lives on, as in a program that uses it: when a collection of garbage finds no object of a
  // class, V8 throws away the code compiled for it; and between two passes those of the passes are all gone.
  const living = await startAll(contestants)
  for (const [index, work] of living.works.entries()) await work(contestants[index].input(0), 0)
  for (let pass = -warmups; pass < passes; pass++) {
    globalThis.gc?.()
    const sums = await onePass(options, pass + warmups)
    if (pass < 0) continue
    for (let i = 0; i < contestants.length; i++) times.get(contestants[i].name)?.push(sums[i])
    options.onPass?.(pass + 1, passes)
  }
  await living.close()
  const timesOf = (name: string): ReadonlyArray<number> => {
    const found = times.get(name)
    if (found === undefined) throw new Error(`no contestant is called ${name}`)
    return found
  }
  return {
    nanos: (name) => spread(timesOf(name)),
    ratio: (numerator, denominator) => {
      const below = timesOf(denominator)
      return spread(timesOf(numerator).map((time, pass) => time / below[pass]))
    }
  }
}

/** A new instance of each. */
const startAll = async <Input>(contestants: ReadonlyArray<Contestant<Input>>) => {
  const works: Array<Work<Input>> = []
  const closing: Array<() => Promise<void>> = []
  for (const { start } of contestants) {
    const started = await start()
    if (typeof started === "function") {
      works.push(started)
    } else {
      works.push(started.work)
      closing.push(started.close)
    }
  }
  const close = async (): Promise<void> => {
    for (const closeOne of closing) await closeOne()
  }
  return { works, close }
}

/** Nanoseconds per operation of each contestant in one pass. */
const onePass = async <Input>(
  { contestants, slices, operationsPerSlice }: ContestOptions<Input>,
  rotation: number
): Promise<ReadonlyArray<number>> => {
  const { works, close } = await startAll(contestants)
  const sums = contestants.map(() => 0)
  const counts = contestants.map(() => 0)
  for (let slice = 0; slice < slices; slice++) {
    // timers run here: some contestants read the clock once a millisecond by means of one
    await new Promise((resolve) => setImmediate(resolve))
    for (let turn = 0; turn < contestants.length; turn++) {
      // there and back: else whoever follows one that leaves much garbage would always be charged with its collection
      const place = slice % 2 === 0 ? turn : contestants.length - 1 - turn
      const index = (place + slice + rotation) % contestants.length
      const contestant = contestants[index]
      if (slice % (contestant.everySlices ?? 1) !== 0) continue
      const input = contestant.input(slice)
      const work = works[index]
      const from = process.hrtime.bigint()
      const pending = work(input, slice)
      if (pending instanceof Promise) await pending
      sums[index] += Number(process.hrtime.bigint() - from)
      counts[index] += 1
    }
  }
  await close()
  return sums.map(
    (sum, index) => sum / (counts[index] * operationsPerSlice * (contestants[index].times ?? 1))
  )
}
