using System;
using Microsoft.AspNetCore.Http.Connections;

namespace Chat
{
    /// <summary>What the environment says, read once.</summary>
    public static class Settings
    {
        /// <summary>The name that every answer bears, to show which pod gave it. Each pod has its own.</summary>
        public static readonly string Pod = Text("POD") ?? Environment.MachineName;

        /// <summary>Base URLs of the other pods. One name may stand for all of them.</summary>
        public static readonly string[] Peers = List("PEERS", "");

        /// <summary>A Redis that carries messages between the pods in place of the relay, such as `redis:6379`. Only since .NET 8 here.</summary>
        public static readonly string Redis = Text("REDIS");

        /// <summary>Where the hub is served. With `/` among them there is no page.</summary>
        public static readonly string[] Hubs = List("HUBS", "/chat,/notifications");

        /// <summary>The transports that it offers.</summary>
        public static readonly HttpTransportType Transports =
            Text("TRANSPORTS") is string names ? Enum.Parse<HttpTransportType>(names) : HttpTransports.All;

        /// <summary>How long it is silent before it sends a ping.</summary>
        public static readonly TimeSpan KeepAlive = TimeSpan.FromSeconds(int.Parse(Text("KEEP_ALIVE_SECONDS") ?? "15"));

        /// <summary>Whether WebSockets are compressed for clients that offer it. Only since .NET 8 here.</summary>
        public static readonly bool CompressesWebSockets = Text("COMPRESS_WEBSOCKETS") != null;

        /// <summary>
        /// How long it waits for a client that says nothing, for the use of an id, and for another pod. Tests on a busy machine
        /// set it; without it these are the framework's 30 s and 15 s, and 2 s.
        /// </summary>
        public static readonly TimeSpan? Patience =
            Text("PATIENCE_SECONDS") is string seconds ? TimeSpan.FromSeconds(int.Parse(seconds)) : (TimeSpan?)null;

        /// <summary>
        /// A prefix under which the hubs once were, such as `/old`. Requests there are redirected to the same path without it.
        /// </summary>
        public static readonly string MovedFrom = Text("MOVED_FROM");

        /// <summary>The framework's own variable: with it, requests by http are redirected to https at this port.</summary>
        public static readonly string HttpsPort = Text("ASPNETCORE_HTTPS_PORT");

        public static readonly string[] CorsOrigins = List("CORS_ORIGINS", "");
        public static readonly string PathBase = Text("PATH_BASE");
        public static readonly string SignalrJs = Text("SIGNALR_JS");
        public static readonly string RequestLog = Text("REQUEST_LOG");

        // A variable that is set but empty counts as unset: docker-compose cannot leave one out.
        private static string Text(string name)
        {
            var value = Environment.GetEnvironmentVariable(name);
            return string.IsNullOrWhiteSpace(value) ? null : value.Trim();
        }

        private static string[] List(string name, string otherwise)
        {
            var items = (Text(name) ?? otherwise).Split(',', StringSplitOptions.RemoveEmptyEntries);
            return Array.ConvertAll(items, item => item.Trim());
        }
    }
}
