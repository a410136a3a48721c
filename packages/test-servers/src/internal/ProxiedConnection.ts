import { connect, type Socket } from "node:net"

/** Pieces under way at once, in one direction of one connection; the sender has to wait beyond that. */
const maxPieces = 1_000

/** What the network does at the moment, to all connections through one proxy. */
export interface Weather {
  /** Nothing is read, so nothing passes; the kernels' buffers fill up as they would for a peer that is gone. */
  halfOpen: boolean
  /** What the target sends is thrown away. */
  droppingAnswers: boolean
  /** How long each piece is under way, in milliseconds. */
  delayMillis: number
}

export interface ConnectionEvents {
  /** A piece of a request was handed to the target. */
  readonly onRequest: (piece: Buffer) => void
  /** A piece of an answer has come; `true` where it must not be delivered, nor anything after it. */
  readonly losesAnswer: () => boolean
  readonly onClose: () => void
}

/** One way through a connection: pieces arrive at `to` in order, each after its delay. */
class Way {
  private readonly pieces: Array<{ readonly piece: Buffer | "end"; readonly dueMillis: number }> = []
  private timer: NodeJS.Timeout | undefined
  private readonly from: Socket
  private readonly to: Socket
  private readonly weather: Weather

  constructor(from: Socket, to: Socket, weather: Weather) {
    this.from = from
    this.to = to
    this.weather = weather
    to.on("drain", () => this.follow())
  }

  push(piece: Buffer | "end"): void {
    this.pieces.push({ piece, dueMillis: performance.now() + this.weather.delayMillis })
    this.follow()
  }

  /** Delivers what is due and reads on, as far as it may. A piece never overtakes another, whatever its delay. */
  follow(): void {
    clearTimeout(this.timer)
    while (!this.weather.halfOpen && !this.to.writableNeedDrain && this.pieces.length > 0) {
      const { dueMillis, piece } = this.pieces[0]!
      const waitMillis = dueMillis - performance.now()
      if (waitMillis > 0) {
        this.timer = setTimeout(() => this.follow(), Math.ceil(waitMillis))
        break
      }
      this.pieces.shift()
      if (piece === "end") this.to.end()
      else this.to.write(piece)
    }
    if (this.weather.halfOpen || this.pieces.length >= maxPieces) this.from.pause()
    else this.from.resume()
  }

  close(): void {
    clearTimeout(this.timer)
    this.pieces.length = 0
  }
}

/** A client's connection and the one to the target that belongs to it. */
export class ProxiedConnection {
  private readonly client: Socket
  private readonly target: Socket
  private readonly requests: Way
  private readonly answers: Way
  private readonly weather: Weather
  private hasLost = false

  constructor(
    client: Socket,
    address: { readonly host: string; readonly port: number },
    weather: Weather,
    events: ConnectionEvents
  ) {
    this.client = client
    this.target = connect({ ...address, noDelay: true, allowHalfOpen: true })
    this.weather = weather
    client.setNoDelay(true)
    this.requests = new Way(client, this.target, weather)
    this.answers = new Way(this.target, client, weather)
    client.on("data", (piece: Buffer) => {
      this.requests.push(piece)
      events.onRequest(piece)
    })
    this.target.on("data", (piece: Buffer) => {
      if (this.hasLost || weather.droppingAnswers) this.hasLost = true
      else if (events.losesAnswer()) this.loseAnswers()
      else this.answers.push(piece)
    })
    client.on("end", () => this.requests.push("end"))
    this.target.on("end", () => this.answers.push("end"))
    for (const [socket, other] of [
      [client, this.target],
      [this.target, client]
    ] as const) {
      socket.on("error", () => this.reset())
      socket.on("close", () => {
        if (!other.closed) return
        this.requests.close()
        this.answers.close()
        events.onClose()
      })
    }
    this.follow()
  }

  /** Looks at the weather again. */
  follow(): void {
    // Bytes are missing: no client could make sense of what comes after them.
    if (this.hasLost && !this.weather.droppingAnswers) this.reset()
    this.requests.follow()
    this.answers.follow()
  }

  /** Both ends see a reset. */
  reset(): void {
    this.client.resetAndDestroy()
    this.target.resetAndDestroy()
  }

  /** The client sees a reset; the target reads to its end what was sent to it, and answers nobody. */
  private loseAnswers(): void {
    this.hasLost = true
    this.client.resetAndDestroy()
    this.requests.push("end")
  }
}
