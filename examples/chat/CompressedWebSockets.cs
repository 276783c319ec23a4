#if NET8_0_OR_GREATER
using System;
using System.Net.WebSockets;
using System.Threading.Tasks;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;

namespace Chat
{
    /// <summary>
    /// Has hubs accept compressed WebSockets (RFC 7692), for which they have no setting of their own. Do not do this where
    /// messages hold secrets beside what strangers wrote: their length would tell the secrets (CRIME, BREACH).
    /// </summary>
    public class CompressedWebSockets : IHttpWebSocketFeature
    {
        private readonly IHttpWebSocketFeature _inner;

        private CompressedWebSockets(IHttpWebSocketFeature inner) => _inner = inner;

        public bool IsWebSocketRequest => _inner.IsWebSocketRequest;

        public Task<WebSocket> AcceptAsync(WebSocketAcceptContext context)
        {
            context.DangerousEnableCompression = true;
            return _inner.AcceptAsync(context);
        }

        /// <summary>The middleware. It comes after that of WebSockets.</summary>
        public static Task Allow(HttpContext context, Func<Task> next)
        {
            var inner = context.Features.Get<IHttpWebSocketFeature>();
            if (inner != null)
            {
                context.Features.Set<IHttpWebSocketFeature>(new CompressedWebSockets(inner));
            }
            return next();
        }
    }
}
#endif
