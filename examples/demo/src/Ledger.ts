/**
 * What really happened, noted by the effects themselves and by the wires, never by a tracker. No tracker can read it,
 * and no consumer's death takes anything out of it.
 */
import type { OrderNote, Receipt } from "./Notes.ts"
import { type History, judge, type Run, type Tally } from "./Tally.ts"

interface MutableHistory extends History {
  readonly deliveries: Array<History["deliveries"][number]>
  readonly runs: Array<{ -readonly [Name in keyof Run]: Run[Name] }>
}

/** How one consumer stands. */
interface Standing {
  inWork: number
  effects: number
}

const positionOf = ({ partition, offset }: Receipt): number => partition * 2 ** 40 + offset

export class Ledger {
  private readonly orders: ReadonlyMap<string, MutableHistory>
  private readonly standings = new Map<string, Standing>()
  private readonly deaths = new Map<string, number>()
  /** Orders with an effect. */
  done = 0
  /** All effects, repeated ones too. */
  effects = 0
  /** All deliveries. */
  receipts = 0

  constructor(orderIds: Iterable<string>) {
    const orders = new Map<string, MutableHistory>()
    for (const orderId of orderIds) orders.set(orderId, { deliveries: [], runs: [] })
    this.orders = orders
  }

  /** Notes of one consumer come in the order in which things happened to it; those of several may come late. */
  note(consumer: string, note: OrderNote): void {
    const { atMillis } = note
    switch (note.what) {
      case "received":
        this.receipts += note.receipts.length
        for (const receipt of note.receipts)
          this.order(receipt.orderId).deliveries.push({ consumer, position: positionOf(receipt), atMillis })
        return
      case "begun":
        this.begin(consumer, note.receipt, atMillis)
        return
      case "effect":
        this.write(consumer, note.orderId, atMillis)
        return
      case "marked":
        for (const orderId of note.orderIds) {
          const run = this.order(orderId).runs.find(
            (run) =>
              run.consumer === consumer &&
              run.effectAtMillis !== undefined &&
              run.markedAtMillis === undefined
          )
          if (run !== undefined) run.markedAtMillis = atMillis
        }
        return
    }
  }

  /** The consumer was killed. Notes that it wrote before may still come. */
  kill(consumer: string, atMillis: number): void {
    this.deaths.set(consumer, atMillis)
  }

  inWork(consumer: string): number {
    return this.standing(consumer).inWork
  }

  effectsOf(consumer: string): number {
    return this.standing(consumer).effects
  }

  /** Whether every living consumer is without work. */
  get isIdle(): boolean {
    for (const [consumer, { inWork }] of this.standings)
      if (inWork > 0 && !this.deaths.has(consumer)) return false
    return true
  }

  tally(): Tally {
    return judge(this.orders, this.deaths)
  }

  private begin(consumer: string, receipt: Receipt, atMillis: number): void {
    const order = this.order(receipt.orderId)
    const position = positionOf(receipt)
    const delivery = order.deliveries.findLast(
      (delivery) => delivery.consumer === consumer && delivery.position === position
    )
    order.runs.push({
      consumer,
      receivedAtMillis: delivery?.atMillis ?? atMillis,
      begunAtMillis: atMillis,
      effectAtMillis: undefined,
      markedAtMillis: undefined
    })
    this.standing(consumer).inWork++
  }

  private write(consumer: string, orderId: string, atMillis: number): void {
    const { runs } = this.order(orderId)
    const run = runs.find((run) => run.consumer === consumer && run.effectAtMillis === undefined)
    if (run === undefined) throw new Error(`${consumer} wrote an effect for ${orderId} without beginning it`)
    if (runs.every((run) => run.effectAtMillis === undefined)) this.done++
    run.effectAtMillis = atMillis
    this.effects++
    const standing = this.standing(consumer)
    standing.inWork--
    standing.effects++
  }

  private standing(consumer: string): Standing {
    const known = this.standings.get(consumer)
    if (known !== undefined) return known
    const standing = { inWork: 0, effects: 0 }
    this.standings.set(consumer, standing)
    return standing
  }

  private order(orderId: string): MutableHistory {
    const order = this.orders.get(orderId)
    if (order === undefined) throw new Error(`the order ${orderId} was never produced`)
    return order
  }
}
