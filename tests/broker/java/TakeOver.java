import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.CloseOptions;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.JoinWindows;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.SessionWindows;
import org.apache.kafka.streams.kstream.StreamJoined;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.SessionStore;
import org.apache.kafka.streams.state.WindowStore;

/**
 * The Java half of the tests in takeover.rs: the same topology, on Kafka Streams for Java.
 *
 * <pre>java -cp 'libs/*' TakeOver.java BOOTSTRAP APPLICATION STATE_DIR OUTPUT_PREFIX</pre>
 *
 * Ends by itself when nothing has come for three seconds, and leaves its group.
 */
public final class TakeOver {
    private static final Serde<String> STRING = Serdes.String();
    private static final Serde<Long> LONG = Serdes.Long();
    /** When a record came last; 0: nothing has gone through the foreign-key join yet, the longest way of all. */
    private static final AtomicLong last = new AtomicLong();

    public static void main(String[] args) throws Exception {
        Topology topology = topology(args[3]);
        Properties config = new Properties();
        config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
        config.put(StreamsConfig.APPLICATION_ID_CONFIG, args[1]);
        config.put(StreamsConfig.STATE_DIR_CONFIG, Path.of(args[2]).toString());
        config.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        config.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, "0");
        config.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, "-1");
        config.put("auto.offset.reset", "earliest");
        // By default what nothing has joined is looked for once a second: how much of it comes would be chance.
        config.put("__emit.interval.ms.kstreams.outer.join.spurious.results.fix__", 0L);
        config.put("session.timeout.ms", "6000");
        KafkaStreams streams = new KafkaStreams(topology, config);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            return null;
        });
        streams.start();
        long until = System.nanoTime() + 100_000_000_000L;
        while (last.get() == 0 || System.nanoTime() - last.get() < 3_000_000_000L) {
            if (System.nanoTime() > until) {
                System.err.println("not done after 100 s: " + streams.state());
                Runtime.getRuntime().halt(2);
            }
            Thread.sleep(100);
        }
        streams.close(CloseOptions.groupMembershipOperation(CloseOptions.GroupMembershipOperation.LEAVE_GROUP)
            .withTimeout(Duration.ofSeconds(30)));
        System.exit(0);
    }

    private static Topology topology(String output) {
        StreamsBuilder builder = new StreamsBuilder();
        Consumed<String, String> strings = Consumed.with(STRING, STRING);
        KStream<String, String> left = builder.stream("left", strings)
            .peek((key, value) -> last.updateAndGet(before -> before == 0 ? 0 : System.nanoTime()));
        KStream<String, String> right = builder.stream("right", strings);
        Duration minute = Duration.ofMinutes(1);

        left.groupByKey(Grouped.with(STRING, STRING))
            .count(Materialized.<String, Long, KeyValueStore<Bytes, byte[]>>as("counts").withKeySerde(STRING).withValueSerde(LONG))
            .toStream()
            .to(output + "counts", Produced.with(STRING, LONG));
        left.groupByKey(Grouped.with(STRING, STRING))
            .windowedBy(TimeWindows.ofSizeWithNoGrace(minute))
            .count(Materialized.<String, Long, WindowStore<Bytes, byte[]>>as("windows").withKeySerde(STRING).withValueSerde(LONG))
            .toStream((key, count) -> key.key() + "@" + key.window().start())
            .to(output + "windows", Produced.with(STRING, LONG));
        left.groupByKey(Grouped.with(STRING, STRING))
            .windowedBy(SessionWindows.ofInactivityGapWithNoGrace(minute))
            .count(Materialized.<String, Long, SessionStore<Bytes, byte[]>>as("sessions").withKeySerde(STRING).withValueSerde(LONG))
            .toStream((key, count) -> key.key() + "@" + key.window().start() + "@" + key.window().end())
            .to(output + "sessions", Produced.with(STRING, LONG));
        left.leftJoin(right, (l, r) -> l + "|" + r, JoinWindows.ofTimeDifferenceWithNoGrace(minute),
                StreamJoined.with(STRING, STRING, STRING).withStoreName("join").withName("join"))
            .to(output + "joined", Produced.with(STRING, STRING));
        KTable<String, String> orders = builder.table("orders", strings, Materialized.as("orders"));
        KTable<String, String> customers = builder.table("customers", strings, Materialized.as("customers"));
        orders.join(customers, value -> value.substring(0, value.indexOf(':')), (order, customer) -> order + "|" + customer)
            .toStream()
            .peek((key, value) -> last.set(System.nanoTime()))
            .to(output + "enriched", Produced.with(STRING, STRING));
        return builder.build();
    }
}
