using System.Net;
using System.Net.WebSockets;
using Microsoft.AspNetCore.Http.Connections.Client;
using Microsoft.AspNetCore.SignalR.Client;
using Microsoft.Extensions.DependencyInjection;

namespace DotnetClient;

/// <summary>Makes a client as the options say.</summary>
internal static class Connecting
{
    public static HubConnection Build(Options options, Action<string?> negotiated)
    {
        var builder = new HubConnectionBuilder().WithUrl(options.Url + options.Hub, http =>
        {
            http.Transports = options.Transport;
            http.SkipNegotiation = options.SkipNegotiation;
            foreach (var (name, value) in options.Headers)
            {
                http.Headers[name] = value;
            }
            Configure(http, options, Version.Parse(options.HttpVersion), negotiated);
        });
        if (options.Protocol == "messagepack")
        {
            builder.AddMessagePackProtocol();
        }
        if (options.StatefulReconnect)
        {
            builder.WithStatefulReconnect();
        }
        return builder.Build();
    }

    private static void Configure(HttpConnectionOptions http, Options options, Version version, Action<string?> negotiated)
    {
        var refusesCookies = options.Cookies == "refused";
        if (refusesCookies)
        {
            // WebSockets take theirs from here, whatever the handler does.
            http.Cookies = new CookieContainer { MaxCookieSize = 1 };
        }
        http.HttpMessageHandlerFactory = handler =>
        {
            var own = (HttpClientHandler)handler;
            own.UseCookies = !refusesCookies;
            // The gateway's certificate is one that a test made.
            own.ServerCertificateCustomValidationCallback = HttpClientHandler.DangerousAcceptAnyServerCertificateValidator;
            return new Watch(own, version, negotiated);
        };
        http.WebSocketConfiguration = socket =>
        {
            socket.HttpVersion = version;
            socket.HttpVersionPolicy = HttpVersionPolicy.RequestVersionExact;
            if (version < HttpVersion.Version20)
            {
                // Over HTTP/2 the handler above has its say.
                socket.RemoteCertificateValidationCallback = (_, _, _, _) => true;
            }
            if (options.Compression)
            {
                socket.DangerousDeflateOptions = new WebSocketDeflateOptions();
            }
        };
    }

    /// <summary>Asks for one version of HTTP, and notes which pod negotiated.</summary>
    private sealed class Watch(HttpMessageHandler inner, Version version, Action<string?> negotiated) : DelegatingHandler(inner)
    {
        protected override async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancelled)
        {
            request.Version = version;
            request.VersionPolicy = HttpVersionPolicy.RequestVersionExact;
            var response = await base.SendAsync(request, cancelled);
            if (request.RequestUri!.AbsolutePath.EndsWith("/negotiate"))
            {
                negotiated(response.Headers.TryGetValues("x-pod", out var pods) ? pods.Single() : null);
            }
            return response;
        }
    }
}
