using System;
using System.IO;
using System.Linq;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.DataProtection;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace BlazorCounter
{
    public static class Program
    {
        /// <summary>The name that every answer bears, to show which pod gave it.</summary>
        public static readonly string Pod = Variable("POD") ?? Environment.MachineName;

        public static void Main(string[] args) =>
            Host.CreateDefaultBuilder(args)
                .UseContentRoot(AppContext.BaseDirectory)
                // The framework's request log would hold the query, and with it the secret connection id.
                .ConfigureLogging(logging => logging.AddFilter("Microsoft.AspNetCore", LogLevel.Warning))
                // Since .NET 10 blazor.server.js is a static asset; without this only Development finds it unpublished.
                .ConfigureWebHostDefaults(web => web.UseStaticWebAssets().UseStartup<Startup>())
                .Build()
                .Run();

        public static string Variable(string name)
        {
            var value = Environment.GetEnvironmentVariable(name);
            return string.IsNullOrWhiteSpace(value) ? null : value.Trim();
        }
    }

    public class Startup
    {
        private static readonly object LogGate = new object();

        public void ConfigureServices(IServiceCollection services)
        {
            services.AddRazorPages();
            services.AddServerSideBlazor();

            // The page carries what its circuit starts from, encrypted: any pod must be able to read what another wrote.
            var protection = services.AddDataProtection().SetApplicationName("blazor");
            var keys = Program.Variable("DATA_PROTECTION_KEYS");
            if (keys != null)
            {
                protection.PersistKeysToFileSystem(new DirectoryInfo(keys));
            }
        }

        public void Configure(IApplicationBuilder app)
        {
            var requestLog = Program.Variable("REQUEST_LOG");
            app.Use((context, next) =>
            {
                context.Response.Headers["x-pod"] = Program.Pod;
                if (requestLog != null && context.Request.Path.StartsWithSegments("/_blazor"))
                {
                    Append(requestLog, context.Request);
                }
                return next();
            });
            app.UseStaticFiles();
            app.UseRouting();
            app.UseEndpoints(endpoints =>
            {
                endpoints.MapGet("/healthz", context => context.Response.WriteAsync("ok"));
                endpoints.MapBlazorHub();
                endpoints.MapFallbackToPage("/_Host");
            });
        }

        // One line of JSON for each request: for tests alone, as it holds connection ids.
        private static void Append(string file, HttpRequest request)
        {
            var line = JsonSerializer.Serialize(new
            {
                method = request.Method,
                path = request.Path.Value,
                query = request.QueryString.Value,
                headers = request.Headers.ToDictionary(header => header.Key, header => header.Value.ToArray()),
            });
            lock (LogGate)
            {
                File.AppendAllText(file, line + "\n");
            }
        }
    }
}
