import { createConnection, Socket } from "node:net"
import type { ISocketFactory } from "kafkajs"

/** The connections of one Kafka client, which can die while those of others in the same process live on. */
export interface MortalSockets {
  /** For the client's `socketFactory`. */
  readonly socketFactory: ISocketFactory
  /**
   * Cuts every connection, and refuses new ones from now on. The broker is told nothing that a killed process would
   * not tell it: no group is left, no offset committed. Idempotent.
   */
  readonly kill: () => void
}

/** Makes a client's connections over plain TCP. */
export const connectPlainly: ISocketFactory = ({ host, port, onConnect }) => {
  const socket = createConnection({ host, port }, onConnect)
  socket.setKeepAlive(true, 60_000)
  return socket
}

/** Makes the connections of a client that is to be killed, by means of `connect`. */
export const makeMortalSockets = (connect: ISocketFactory = connectPlainly): MortalSockets => {
  const sockets = new Set<Socket>()
  let isDead = false
  const die = (socket: Socket) => {
    // kafkajs listens to `error` and `end`, not to `close`: without an error it would wait for its request timeout.
    socket.destroy(new Error("this client was killed"))
  }
  return {
    socketFactory: (target) => {
      const socket = isDead ? new Socket() : connect(target)
      // kafkajs calls `unref` on dead sockets again and again, which adds a listener each time.
      socket.setMaxListeners(0)
      if (isDead) {
        // Not at once: kafkajs adds its listeners after this function returns.
        setImmediate(die, socket)
        return socket
      }
      sockets.add(socket)
      socket.once("close", () => sockets.delete(socket))
      return socket
    },
    kill: () => {
      isDead = true
      for (const socket of sockets) die(socket)
    }
  }
}
