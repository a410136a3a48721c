import { createConnection, type Socket } from "node:net"
import { expect } from "@effect/vitest"
import { describeWithOwnKafka } from "@tidemark/test-servers/vitest"
import { Effect, Exit, Scope } from "effect"
import { KafkaClient } from "../src/KafkaClient.ts"
import * as KafkaJs from "../src/KafkaJs.ts"
import { enter, memberOptions, Probe, uniqueName, until } from "./kafkaClientSuite.ts"
import { outageSuite } from "./outageSuite.ts"

await describeWithOwnKafka("KafkaJs through outages", () => {
  const test = outageSuite({ name: "KafkaJs", layer: KafkaJs.layer, layerConfig: KafkaJs.layerConfig })

  test("a member whose connections are cut for good leaves its partitions to others after its session", (server) =>
    Effect.gen(function* () {
      const sockets = new Set<Socket>()
      let cut = false
      const mortal = KafkaJs.layer({
        brokers: server.brokers,
        socketFactory: ({ host, port, onConnect }) => {
          if (cut) throw new Error("cut off")
          const socket = createConnection({ host, port }, onConnect)
          sockets.add(socket)
          return socket
        }
      })
      const topic = uniqueName("topic")
      const groupId = uniqueName("group")
      const living = yield* KafkaClient
      yield* living.createTopics([{ topic, partitions: 2 }])
      const scope = yield* Scope.make()
      const dying = new Probe()
      yield* Effect.gen(function* () {
        const client = yield* KafkaClient
        yield* client.join(memberOptions(groupId, [topic], dying))
      }).pipe(Effect.provide(mortal), Scope.provide(scope), Effect.forkIn(scope))
      yield* until("the first is in", () => dying.assigned.length === 2)
      const survivor = yield* enter(living, groupId, [topic])
      yield* until("both share", () => dying.assigned.length === 1)
      const since = Date.now()
      cut = true
      for (const socket of sockets) socket.destroy(new Error("cut off"))
      yield* until("the survivor has both", () => survivor.probe.assigned.length === 2)
      expect(Date.now() - since).toBeLessThan(15_000)
      yield* until("the dead one knows", () => dying.ends.length > 0)
      expect(dying.assignments.at(-1)?.partitions.length).toBe(1)
      yield* Scope.close(scope, Exit.void)
    }).pipe(Effect.provide(KafkaJs.layer({ brokers: server.brokers }))))
})
