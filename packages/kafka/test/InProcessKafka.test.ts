import * as InProcessKafka from "../src/InProcessKafka.ts"
import { kafkaClientSuite } from "./kafkaClientSuite.ts"

kafkaClientSuite("InProcessKafka", InProcessKafka.layer())
