import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.microsoft.signalr.HubConnection;
import com.microsoft.signalr.HubConnectionBuilder;
import com.microsoft.signalr.TransportEnum;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import okhttp3.CookieJar;
import okhttp3.OkHttpClient;
import okhttp3.Response;

/**
 * Drives Microsoft's client: java -cp … Client '{"url": "http://127.0.0.1:8080", "hub": "/chat", …}'.
 * The options are those of `JavaClient` in tests/testbed/src/clients/java.rs; one JSON report goes to stdout.
 */
final class Client {
    private static final Gson JSON = new GsonBuilder().serializeNulls().disableHtmlEscaping().create();
    private static final Map<String, TransportEnum> TRANSPORTS =
            Map.of("WebSockets", TransportEnum.WEBSOCKETS, "LongPolling", TransportEnum.LONG_POLLING);

    static final class Options {
        String url;
        String hub;
        String transport;
        String cookies;
        int connects;
        int parallel;
        long holdMs;
        long tryMs;
    }

    /** What the hub says of a connection. */
    static final class Whereabouts {
        String pod;
        String connectionId;
        String transport;
    }

    /** One try, as the report has it. */
    static final class Try {
        boolean ok;
        volatile String negotiatedPod;
        String answeredPod;
        String connectionId;
        String transport;
        String error;
        volatile String cut;
        long milliseconds;
    }

    private final Options options;
    private final Try seen = new Try();
    private final CountDownLatch closed = new CountDownLatch(1);

    private Client(Options options) {
        this.options = options;
    }

    private HubConnection build() {
        HubConnection connection = HubConnectionBuilder.create(options.url + options.hub)
                .withTransport(TRANSPORTS.get(options.transport))
                .withHandshakeResponseTimeout(options.tryMs)
                .setHttpClientBuilderCallback(this::watch)
                .build();
        connection.onClosed(error -> {
            seen.cut = error == null ? "closed by the other side" : error.toString();
            closed.countDown();
        });
        return connection;
    }

    /** The client keeps cookies unless it is given another jar. */
    private void watch(OkHttpClient.Builder http) {
        if (options.cookies.equals("refused")) http.cookieJar(CookieJar.NO_COOKIES);
        http.addInterceptor(chain -> {
            Response response = chain.proceed(chain.request());
            if (chain.request().url().encodedPath().endsWith("/negotiate")) seen.negotiatedPod = response.header("x-pod");
            return response;
        });
    }

    private <T> T invoke(HubConnection connection, Class<T> type, String method, Object... arguments) {
        return connection.invoke(type, method, arguments).timeout(options.tryMs, TimeUnit.MILLISECONDS).blockingGet();
    }

    private void prove(HubConnection connection) throws Exception {
        if (!connection.start().blockingAwait(options.tryMs, TimeUnit.MILLISECONDS)) {
            throw new TimeoutException("no connection within " + options.tryMs + " ms");
        }
        seen.connectionId = connection.getConnectionId();
        Whereabouts me = invoke(connection, Whereabouts.class, "WhoAmI");
        seen.answeredPod = me.pod;
        seen.transport = me.transport;
        String text = "hello " + System.nanoTime() + " äöü";
        String echo = invoke(connection, String.class, "Echo", text);
        if (!text.equals(echo)) throw new IllegalStateException("the echo of \"" + text + "\" is \"" + echo + "\"");
        if (!me.connectionId.equals(seen.connectionId)) {
            throw new IllegalStateException("the client is " + seen.connectionId + ", to the hub it is " + me.connectionId);
        }
        if (!me.pod.equals(seen.negotiatedPod)) {
            throw new IllegalStateException(seen.negotiatedPod + " negotiated, " + me.pod + " answered");
        }
    }

    private Try attempt() throws InterruptedException {
        long began = System.nanoTime();
        HubConnection connection = build();
        try {
            prove(connection);
            seen.ok = true;
        } catch (Exception error) {
            seen.error = error.toString();
        }
        seen.milliseconds = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - began);
        if (seen.ok) closed.await(options.holdMs, TimeUnit.MILLISECONDS);
        String cut = seen.cut;
        connection.stop().onErrorComplete().blockingAwait(5, TimeUnit.SECONDS);
        // Its own farewell closes the connection, too.
        seen.cut = cut;
        return seen;
    }

    public static void main(String[] arguments) throws Exception {
        Options options = JSON.fromJson(arguments[0], Options.class);
        List<Callable<Try>> tasks = new ArrayList<>();
        for (int number = 0; number < options.connects; number++) {
            tasks.add(() -> new Client(options).attempt());
        }
        List<Try> tries = new ArrayList<>();
        for (Future<Try> one : Executors.newFixedThreadPool(options.parallel).invokeAll(tasks)) tries.add(one.get());
        long connected = tries.stream().filter(one -> one.ok).count();
        String report = JSON.toJson(Map.of("tried", tries.size(), "connected", connected, "tries", tries));
        new PrintStream(System.out, true, StandardCharsets.UTF_8).println(report);
        // Idle threads of the HTTP clients would hold the process for a minute.
        System.exit(0);
    }
}
