using System;
using System.Buffers;
using System.Collections.Generic;
using System.Text.Json;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.SignalR;
using Microsoft.AspNetCore.SignalR.Protocol;
using Microsoft.Extensions.DependencyInjection;

[assembly: HostingStartup(typeof(Testbed.AddMessagePack))]

namespace Testbed
{
    /// <summary>Gives the application MessagePack, without a change in its own sources.</summary>
    public class AddMessagePack : IHostingStartup
    {
        public void Configure(IWebHostBuilder builder)
        {
            // The type is internal: a framework without it goes without MessagePack, and what needs that fails, nothing else.
            var inner = Type.GetType(MessagePack.Inner, throwOnError: false);
            if (inner?.GetConstructor(Type.EmptyTypes) is null)
            {
                return;
            }
            var protocol = new MessagePack((IHubProtocol)Activator.CreateInstance(inner));
            builder.ConfigureServices(services => services.AddSingleton<IHubProtocol>(protocol));
        }
    }

    /// <summary>
    /// MessagePack comes from NuGet, which a test cannot count on. But the framework holds it a second time, for
    /// Blazor: the same format under another name, which writes plain values only. Objects go as JSON text.
    /// </summary>
    public class MessagePack : IHubProtocol
    {
        public const string Inner = "Microsoft.AspNetCore.Components.Server.BlazorPack.BlazorPackHubProtocol, Microsoft.AspNetCore.Components.Server";

        private readonly IHubProtocol _inner;

        public MessagePack(IHubProtocol inner) => _inner = inner;

        public string Name => "messagepack";

        public int Version => 1;

        public TransferFormat TransferFormat => TransferFormat.Binary;

        public bool IsVersionSupported(int version) => version == Version;

        public bool TryParseMessage(ref ReadOnlySequence<byte> input, IInvocationBinder binder, out HubMessage message) =>
            _inner.TryParseMessage(ref input, binder, out message);

        public void WriteMessage(HubMessage message, IBufferWriter<byte> output) => _inner.WriteMessage(Plain(message), output);

        public ReadOnlyMemory<byte> GetMessageBytes(HubMessage message) => _inner.GetMessageBytes(Plain(message));

        private static HubMessage Plain(HubMessage message)
        {
            switch (message)
            {
                case CompletionMessage completion when completion.HasResult:
                    return new CompletionMessage(completion.InvocationId, null, Plain(completion.Result), true);
                case InvocationMessage invocation:
                    return new InvocationMessage(invocation.InvocationId, invocation.Target, Array.ConvertAll(invocation.Arguments, Plain));
                case StreamItemMessage item:
                    return new StreamItemMessage(item.InvocationId, Plain(item.Item));
                default:
                    return message;
            }
        }

        private static object Plain(object value) =>
            value is null || value is string || value is bool || value is int || value is long ? value : JsonSerializer.Serialize(value);
    }
}
