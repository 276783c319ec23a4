using System;
using System.IO;
using System.Linq;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Connections;
using Microsoft.AspNetCore.Rewrite;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Chat
{
    public static class Program
    {
        public static void Main(string[] args) =>
            Host.CreateDefaultBuilder(args)
                .UseContentRoot(AppContext.BaseDirectory)
                // The framework's request log would hold the query, and with it the secret connection id.
                .ConfigureLogging(logging => logging.AddFilter("Microsoft.AspNetCore", LogLevel.Warning))
                .ConfigureWebHostDefaults(web => web.UseStartup<Startup>())
                .Build()
                .Run();
    }

    public class Startup
    {
        public void ConfigureServices(IServiceCollection services)
        {
            var signalR = services.AddSignalR(options =>
            {
                options.EnableDetailedErrors = true;
                options.KeepAliveInterval = Settings.KeepAlive;
                options.ClientTimeoutInterval = Settings.Patience ?? options.ClientTimeoutInterval;
                options.HandshakeTimeout = Settings.Patience ?? options.HandshakeTimeout;
            });
            services.Configure<ConnectionOptions>(options =>
                options.DisconnectTimeout = Settings.Patience ?? options.DisconnectTimeout);
#if NET8_0_OR_GREATER
            signalR.AddMessagePackProtocol();
            if (Settings.Redis != null)
            {
                signalR.AddStackExchangeRedis(Settings.Redis);
            }
#endif
            services.AddSingleton<Relay>();
            services.AddCors(cors => cors.AddDefaultPolicy(policy => policy
                .WithOrigins(Settings.CorsOrigins)
                .AllowAnyHeader()
                .AllowAnyMethod()
                .AllowCredentials()));
        }

        public void Configure(IApplicationBuilder app, IWebHostEnvironment environment, Relay relay)
        {
            if (Settings.PathBase != null)
            {
                app.UsePathBase(Settings.PathBase);
            }
            app.Use((context, next) =>
            {
                context.Response.Headers["x-pod"] = Settings.Pod;
                if (Settings.RequestLog != null && Settings.Hubs.Any(hub => IsUnder(hub, context.Request.Path)))
                {
                    RequestLog.Append(Settings.RequestLog, context.Request);
                }
                return next();
            });
            if (Settings.MovedFrom != null)
            {
                var moved = new RewriteOptions();
                app.UseRewriter(moved.AddRedirect($"^{Settings.MovedFrom.Trim('/')}/(.*)", "$1", StatusCodes.Status307TemporaryRedirect));
            }
            if (Settings.HttpsPort != null)
            {
                app.UseWhen(context => context.Request.Path != "/healthz", https => https.UseHttpsRedirection());
            }
            if (!Settings.Hubs.Contains("/"))
            {
                app.UseDefaultFiles();
                app.UseStaticFiles();
            }
#if NET8_0_OR_GREATER
            if (Settings.CompressesWebSockets)
            {
                app.UseWebSockets();
                app.Use(CompressedWebSockets.Allow);
            }
#endif
            app.UseRouting();
            if (Settings.CorsOrigins.Any())
            {
                app.UseCors();
            }
            app.UseEndpoints(endpoints =>
            {
                foreach (var hub in Settings.Hubs)
                {
                    // The framework appends `/negotiate`, so the root must be the empty string.
                    endpoints.MapHub<ChatHub>(hub.TrimEnd('/'), options =>
                    {
                        options.Transports = Settings.Transports;
#if NET8_0_OR_GREATER
                        options.AllowStatefulReconnects = true;
#endif
                    });
                }
                endpoints.MapGet("/healthz", context => context.Response.WriteAsync("ok"));
                endpoints.MapPost("/relay", relay.Receive);

                var script = Settings.SignalrJs ?? Path.Combine(environment.ContentRootPath, "wwwroot", "signalr.min.js");
                endpoints.MapGet("/signalr.min.js", context =>
                {
                    if (!File.Exists(script))
                    {
                        context.Response.StatusCode = StatusCodes.Status404NotFound;
                        return context.Response.WriteAsync("set SIGNALR_JS to @microsoft/signalr's dist/browser/signalr.min.js");
                    }
                    context.Response.ContentType = "text/javascript";
                    return context.Response.SendFileAsync(script);
                });
            });
        }

        private static bool IsUnder(string hub, PathString path) =>
            hub == "/" || path.StartsWithSegments(hub.TrimEnd('/'));
    }
}
