/** The load: orders, some of which a retrying producer sends a second time. The same seed gives the same load. */
import { embeddedPartitions } from "./EmbeddedBroker.ts"

/** One message to be produced. */
export interface OrderMessage {
  readonly orderId: string
  readonly partition: number
  /** `again`: the producer had sent it already, and sends it once more, to another offset. */
  readonly kind: "first" | "again"
}

export interface LoadOptions {
  /** How many orders there are, each with an id of its own. */
  readonly orders: number
  readonly partitions: number
  /** How many of 100 orders are sent twice; 0 to 100. */
  readonly duplicatesPercent: number
  readonly seed: number
}

export const defaultLoad: LoadOptions = {
  orders: 10_000,
  partitions: embeddedPartitions,
  duplicatesPercent: 3,
  seed: 1
}

/** Numbers in [0, 1), after Bob Jenkins' small fast generator (sfc32); good enough to shuffle with. */
export const makeRandom = (seed: number): (() => number) => {
  let [a, b, c, counter] = [seed | 0, 0x9e3779b9 | 0, 0x243f6a88 | 0, 1]
  const next = (): number => {
    const sum = (((a + b) | 0) + counter) | 0
    counter = (counter + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = (((c << 21) | (c >>> 11)) + sum) | 0
    return (sum >>> 0) / 4_294_967_296
  }
  for (let round = 0; round < 15; round++) next()
  return next
}

const shuffle = <A>(items: Array<A>, random: () => number): Array<A> => {
  for (let last = items.length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1))
    const item = items[last] as A
    items[last] = items[other] as A
    items[other] = item
  }
  return items
}

/** A later copy comes this many orders after the first one, so that the first one is done by then. */
const laterBy = 500

/**
 * The messages in the order in which they are produced. Of the orders that are sent twice, every second one comes
 * again right behind itself, so that both are in work at once; the others come again later.
 */
export const makeLoad = (options: LoadOptions): ReadonlyArray<OrderMessage> => {
  const { orders, partitions, duplicatesPercent, seed } = options
  const random = makeRandom(seed)
  const width = String(orders).length
  const numbers = shuffle(
    Array.from({ length: orders }, (_, index) => index + 1),
    random
  )
  const messages = numbers.map((number, index) => ({
    place: index,
    message: {
      orderId: `order-${String(number).padStart(width, "0")}`,
      partition: index % partitions,
      kind: "first"
    } as OrderMessage
  }))
  const twice = shuffle(
    Array.from({ length: orders }, (_, index) => index),
    random
  ).slice(0, Math.round((orders * duplicatesPercent) / 100))
  const copies = twice.map((index, turn) => {
    const room = orders - index
    const distance = room > laterBy ? laterBy + random() * (room - laterBy) : random() * room
    const place = turn % 2 === 0 ? index : index + distance
    return { place: place + 0.5, message: { ...messages[index]!.message, kind: "again" } as OrderMessage }
  })
  return [...messages, ...copies].sort((one, other) => one.place - other.place).map(({ message }) => message)
}
