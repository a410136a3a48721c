/**
 * librdkafka's mock cluster completes a rebalance when the group's leader hands in the assignment, and refuses a
 * member that asks for its own part of it later than that (INVALID_REQUEST, which ends a kafkajs consumer). A real
 * broker waits. So on the embedded broker the leader's request is held back for a moment: of 72 joins none failed
 * then, 5 of 72 without.
 */
import type { Socket } from "node:net"
import type { ISocketFactory } from "kafkajs"

const holdBackMillis = 200
const syncGroup = 14

/**
 * Whether a request of Kafka's protocol is a SyncGroup that carries assignments, which only the leader's does.
 * Up to version 3, the latest that kafkajs speaks.
 */
const isLeadersSync = (request: Buffer): boolean => {
  if (request.readInt16BE(4) !== syncGroup) return false
  const version = request.readInt16BE(6)
  const afterString = (at: number) => at + 2 + Math.max(request.readInt16BE(at), 0)
  const groupId = afterString(12)
  const generation = afterString(groupId)
  const instanceId = afterString(generation + 4)
  const assignments = version < 3 ? instanceId : afterString(instanceId)
  return request.readInt32BE(assignments) > 0
}

/** Connections on which the leader of a group asks after its members; kafkajs writes one request at a time. */
export const leaderLast =
  (connect: ISocketFactory): ISocketFactory =>
  (target) => {
    const socket = connect(target)
    const write = socket.write.bind(socket) as (request: Buffer, encoding: BufferEncoding) => boolean
    const writeLeaderLast = (request: Buffer, encoding: BufferEncoding): boolean => {
      if (!isLeadersSync(request)) return write(request, encoding)
      setTimeout(() => {
        if (!socket.destroyed) write(request, encoding)
      }, holdBackMillis)
      return true
    }
    socket.write = writeLeaderLast as Socket["write"]
    return socket
  }
