// SPDX-License-Identifier: MIT
//
// perf.hpp - libperf for C++17: the same calls, with RAII, exceptions, optional
// and lambdas. Header only; it adds nothing that cache.h, pool.h, executor.h and task.h
// do not have.
//
//     libperf::cache cache({"/var/cache/app.db"});            // or libperf::cache cache;
//     libperf::value page = cache.load("pages", url, [&] { return fetch(url); }, 5min).value();
//     std::cout << page.view();
//
//     libperf::pool<db> pool({open_db, close_db});
//     pool.acquire(50ms)->query("...");                       // and it goes back
//
//     libperf::executor executor;
//     libperf::task task = executor.submit([=] { return index(folder); });
//     task.get(5s);                                           // its result, or libperf::error
//
//     libperf::tasks tasks("tasks.db");                       // these survive the process
//     tasks.handle("resize", [](libperf::run &run) { return resize(run.payload()); });
//
// The namespace is libperf, since perf is a type of the C interface.
//
// Caveats first
//  - Errors are exceptions (libperf::error). A miss is not: it is an empty optional.
//  - Threads: as in cache.h. Any thread may use a cache; destroy it last.
//  - A loader is called on the thread that asked, before load() returns, so it may
//    capture by reference. load_options::background allows refreshes and time
//    limits: the loader is then *copied* and may run on another thread after load()
//    has returned; capture by value, and only what outlives the cache by itself.
//  - An exception that leaves a loader reaches the caller whose loader it was.
//    Others who waited for that load get libperf::error with PERF_ELOAD.
//  - A task runs after submit() has returned: capture by value, or what outlives it.
//    co_await executor.run(...), with C++20, goes on on the executor's thread.
//  - Names (namespace, user, tag) are NUL-terminated; keys and values are bytes.
//
#ifndef LIBPERF_PERF_HPP
#define LIBPERF_PERF_HPP

#if __cplusplus < 201703L
#error "libperf/perf.hpp needs C++17; <libperf/cache.h> works with every C++"
#endif

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>
#if __cplusplus >= 202002L
#include <span>
#endif
#if defined(__cpp_impl_coroutine)
#include <coroutine>
#endif

#include <libperf/perf.h>

namespace libperf
{

// ------------------------------------------------------------------- basics

/// A failed call: code() is the PERF_E constant, what() the detail that the library gave.
class error : public std::runtime_error
{
  public:
    explicit error(int code) : error(code, perf_last_error())
    {
    }
    error(int code, const std::string &detail)
        : std::runtime_error(detail.empty() ? std::string(perf_strerror(code)) : detail),
          code_(code)
    {
    }
    int code() const noexcept
    {
        return code_;
    }

  private:
    int code_;
};

/// Lives are chrono durations; seconds, minutes and hours convert by themselves.
using duration = std::chrono::milliseconds;
inline constexpr duration default_ttl{PERF_TTL_DEFAULT};
inline constexpr duration forever{PERF_TTL_FOREVER};

/// Borrowed bytes, made from anything that has contiguous characters or bytes.
class bytes
{
  public:
    constexpr bytes() noexcept = default;
    constexpr bytes(const void *data, std::size_t size) noexcept : data_(data), size_(size)
    {
    }
    constexpr bytes(std::string_view text) noexcept : data_(text.data()), size_(text.size())
    {
    }
    constexpr bytes(const char *text) noexcept : bytes(std::string_view(text))
    {
    }
    bytes(const std::string &text) noexcept : data_(text.data()), size_(text.size())
    {
    }
    /// std::vector, std::array and (C++20) std::span of char, unsigned char or std::byte.
    template <typename C,
              typename E = std::remove_cv_t<
                  std::remove_pointer_t<decltype(std::declval<const C &>().data())>>,
              typename = std::enable_if_t<sizeof(E) == 1 && std::is_trivially_copyable_v<E>>,
              typename = decltype(std::declval<const C &>().size())>
    constexpr bytes(const C &container) noexcept : data_(container.data()), size_(container.size())
    {
    }
    constexpr const void *data() const noexcept
    {
        return data_;
    }
    constexpr std::size_t size() const noexcept
    {
        return size_;
    }

  private:
    const void *data_ = nullptr;
    std::size_t size_ = 0;
};

/// Where a key lives: a namespace and, if given, a user. "courses" or {"courses", "anna"}.
struct where {
    const char *ns;
    const char *user;
    where(const char *space, const char *who = nullptr) noexcept : ns(space), user(who)
    {
    }
    where(const std::string &space) noexcept : ns(space.c_str()), user(nullptr)
    {
    }
    where(const std::string &space, const std::string &who) noexcept
        : ns(space.c_str()), user(who.c_str())
    {
    }
};

namespace detail
{

inline void check(int rc)
{
    if (rc != PERF_OK)
        throw error(rc);
}

/// True for PERF_OK, false for PERF_MISS, an exception for all else.
inline bool found(int rc)
{
    if (rc == PERF_MISS)
        return false;
    check(rc);
    return true;
}

template <typename T> struct is_optional : std::false_type {
};
template <typename T> struct is_optional<std::optional<T>> : std::true_type {
};

template <typename T>
inline constexpr bool is_plain = std::is_trivially_copyable_v<T> && !std::is_pointer_v<T>;

} // namespace detail

/// A key from several values, unambiguously: libperf::key(42, "en"). Types as for PERF_CACHED.
template <typename... Args> std::string key(const Args &...args)
{
    perf_sugar_key k{};
    k.data = k.local;
    k.cap = sizeof k.local;
    (perf_sugar_type<std::decay_t<const Args>>::put(&k, args), ...);
    std::unique_ptr<perf_sugar_key, void (*)(perf_sugar_key *)> guard(&k, perf_sugar_key_close);
    if (!k.data)
        throw error(PERF_ETOOBIG, "the key is longer than 32767 bytes");
    return std::string(static_cast<const char *>(static_cast<const void *>(k.data)), k.len);
}

// -------------------------------------------------------------------- value

/// What a get found: immutable bytes, held until the value is destroyed. Move-only.
class value
{
  public:
    value() noexcept = default;
    explicit value(perf_value *taken) noexcept : handle_(taken)
    {
    }
    const void *data() const noexcept
    {
        return handle_ ? perf_value_data(handle()) : nullptr;
    }
    std::size_t size() const noexcept
    {
        return handle_ ? perf_value_size(handle()) : 0;
    }
    std::string_view view() const noexcept
    {
        return {static_cast<const char *>(data()), size()};
    }
    std::string str() const
    {
        return std::string(view());
    }
    /// The bytes as a T; throws PERF_ECORRUPT when there are more or fewer than sizeof(T).
    template <typename T> T as() const
    {
        static_assert(detail::is_plain<T>, "as<T>: T must be trivially copyable, not a pointer");
        T copy;
        if (size() != sizeof copy)
            throw error(PERF_ECORRUPT, "the value has another size than the type asked for");
        std::memcpy(static_cast<void *>(std::addressof(copy)), data(), sizeof copy);
        return copy;
    }
    /// Changes with every write of the key; for set_options::if_version.
    std::uint64_t version() const noexcept
    {
        return handle_ ? perf_value_version(handle()) : 0;
    }
    /// Life left when it was read, or libperf::forever.
    duration ttl() const noexcept
    {
        return duration(handle_ ? perf_value_ttl_ms(handle()) : 0);
    }
    bool stale() const noexcept
    {
        return handle_ && perf_value_is_stale(handle());
    }
    const perf_value *handle() const noexcept
    {
        return handle_.get();
    }
#if __cplusplus >= 202002L
    std::span<const std::byte> span() const noexcept
    {
        return {static_cast<const std::byte *>(data()), size()};
    }
#endif

  private:
    struct release {
        void operator()(perf_value *held) const noexcept
        {
            perf_value_release(held);
        }
    };
    std::unique_ptr<perf_value, release> handle_;
};

// ------------------------------------------------------------------ options

/// How to open a cache; empty or 0 means the default. More by cache(perf_cache_options).
struct cache_options {
    std::string durable_path{};          ///< one SQLite tier at this file
    std::uint64_t memory_max_bytes = 0;  ///< default 64 MiB
    std::uint64_t durable_max_bytes = 0; ///< default 1 GiB
    std::uint64_t workers = 0;           ///< most background threads; default 2
};

/// How to put. Tags are names to invalidate by.
struct set_options {
    duration ttl = default_ttl;
    duration stale{0};
    std::vector<std::string> tags{};
    std::uint64_t weight = 0;
    bool if_absent = false;
    bool if_present = false;
    std::uint64_t if_version = 0;
};

/// How to load.
struct load_options {
    duration ttl = default_ttl;
    duration stale{0};
    std::vector<std::string> tags{};
    duration wait{0};        ///< the caller's own deadline; 0: none
    bool background = false; ///< see the caveats on top
};

namespace detail
{

/// The C form of a put's options; borrows from what it was made of.
class c_set
{
  public:
    c_set(duration ttl, duration stale, const std::vector<std::string> &tags)
    {
        for (const std::string &tag : tags)
            names_.push_back(tag.c_str());
        options.ttl_ms = ttl.count();
        options.stale_ms = stale.count();
        options.tags = names_.data();
        options.tag_count = names_.size();
    }
    perf_set_options options = PERF_SET_OPTIONS_INIT;

  private:
    std::vector<const char *> names_;
};

} // namespace detail

// ------------------------------------------------------------------ loading

/// One load under way, as a loader sees it that takes (libperf::loading &).
class loading
{
  public:
    explicit loading(perf_load *load) noexcept : load_(load)
    {
    }
    std::string_view key() const noexcept
    {
        std::size_t len = 0;
        const void *data = perf_load_key(load_, &len);
        return {static_cast<const char *>(data), len};
    }
    /// Gives the value. A loader that returns its value need not call this.
    void set(bytes data)
    {
        detail::check(perf_load_set(load_, data.data(), data.size()));
    }
    void ttl(duration ttl, duration stale = duration(0))
    {
        detail::check(perf_load_set_ttl(load_, ttl.count(), stale.count()));
    }
    void tag(const std::string &name)
    {
        detail::check(perf_load_add_tag(load_, name.c_str()));
    }
    /// True when nobody waits any more or the time limit passed.
    bool cancelled() const noexcept
    {
        return perf_load_cancelled(load_) != 0;
    }
    /// The value that this load would replace, for conditional requests.
    std::optional<std::string_view> stale() const noexcept
    {
        std::size_t len = 0;
        const void *data = perf_load_stale(load_, &len);
        if (!data)
            return std::nullopt;
        return std::string_view(static_cast<const char *>(data), len);
    }
    /// Keeps the stale value with a new life; false when there is none.
    bool keep_stale()
    {
        return detail::found(perf_load_keep_stale(load_));
    }
    perf_load *handle() const noexcept
    {
        return load_;
    }

  private:
    perf_load *load_;
};

namespace detail
{

/// The lambda of one call, and where to put the exception that left it, for no exception
/// crosses the library. kept is for copies, which may outlive the call.
template <typename F> struct call {
    F fn;
    std::exception_ptr *thrown;
    std::shared_ptr<std::exception_ptr> kept{};

    template <typename R> static int give(perf_load *load, const R &result)
    {
        if constexpr (is_optional<R>::value) {
            return result ? give(load, *result) : PERF_MISS;
        } else if constexpr (std::is_convertible_v<const R &, bytes>) {
            bytes data(result);
            return perf_load_set(load, data.data(), data.size());
        } else {
            static_assert(is_plain<R>, "a loader returns bytes, a trivially copyable value, an "
                                       "optional of one of these, or nothing after loading::set");
            return perf_load_set(load, std::addressof(result), sizeof result);
        }
    }

    int run(perf_load *load)
    {
        loading view(load);
        if constexpr (std::is_invocable_v<F &, loading &>) {
            if constexpr (std::is_void_v<std::invoke_result_t<F &, loading &>>)
                return fn(view), PERF_OK;
            else
                return give(load, fn(view));
        } else {
            static_assert(std::is_invocable_v<F &>, "a loader takes (loading &) or nothing");
            return give(load, fn());
        }
    }

    static int load(perf_load *load, void *ctx) noexcept
    {
        call *self = static_cast<call *>(ctx);
        try {
            return self->run(load);
        } catch (...) {
            *self->thrown = std::current_exception();
            return PERF_ELOAD;
        }
    }
    static void *clone(void *ctx) noexcept
    {
        try {
            return new call(*static_cast<const call *>(ctx));
        } catch (...) {
            return nullptr;
        }
    }
    static void release(void *ctx) noexcept
    {
        delete static_cast<call *>(ctx);
    }
};

/// The lambda of a batch, which gets all the keys that missed.
template <typename F> struct batch_call {
    F fn;
    std::exception_ptr thrown{};

    static int load(perf_load *const *loads, std::size_t count, void *ctx) noexcept
    {
        batch_call *self = static_cast<batch_call *>(ctx);
        try {
            std::vector<loading> views;
            for (std::size_t i = 0; i < count; i++)
                views.emplace_back(loads[i]);
            self->fn(views);
            return PERF_OK;
        } catch (...) {
            self->thrown = std::current_exception();
            return PERF_ELOAD;
        }
    }
};

} // namespace detail

// -------------------------------------------------------------------- cache

/// A cache that closes itself. Move-only.
class cache
{
  public:
    explicit cache(const cache_options &options = {})
    {
        perf_cache_options raw = PERF_CACHE_OPTIONS_INIT;
        raw.memory_max_bytes = options.memory_max_bytes;
        raw.durable_path = options.durable_path.empty() ? nullptr : options.durable_path.c_str();
        raw.durable_max_bytes = options.durable_max_bytes;
        raw.workers = options.workers;
        open(raw);
    }
    explicit cache(const perf_cache_options &options)
    {
        open(options);
    }
    /// Takes over a handle of the C interface.
    explicit cache(perf_cache *taken) noexcept : handle_(taken)
    {
    }
    perf_cache *handle() const noexcept
    {
        return handle_.get();
    }
    /// Closes now; throws when a tier lost writes, which the destructor cannot say.
    void close()
    {
        detail::check(perf_cache_close(handle_.release()));
    }

    // Set and get.

    void set(where at, bytes key, bytes data, duration ttl = default_ttl)
    {
        detail::check(perf_cache_set(handle(), at.ns, at.user, key.data(), key.size(), data.data(),
                                     data.size(), ttl.count()));
    }
    /// The new version, or nothing when the condition did not hold.
    std::optional<std::uint64_t> put(where at, bytes key, bytes data, const set_options &options)
    {
        detail::c_set set(options.ttl, options.stale, options.tags);
        std::uint64_t version = 0;
        set.options.weight = options.weight;
        set.options.version = options.if_version;
        set.options.mode = options.if_version   ? PERF_SET_IF_VERSION
                           : options.if_absent  ? PERF_SET_IF_ABSENT
                           : options.if_present ? PERF_SET_IF_PRESENT
                                                : PERF_SET_ALWAYS;
        int rc = perf_cache_put(handle(), at.ns, at.user, key.data(), key.size(), data.data(),
                                data.size(), &set.options, &version);
        if (rc == PERF_EEXISTS || rc == PERF_ECONFLICT || !detail::found(rc))
            return std::nullopt;
        return version;
    }
    std::optional<value> get(where at, bytes key) const
    {
        perf_value *found = nullptr;
        if (!detail::found(
                perf_cache_get(handle(), at.ns, at.user, key.data(), key.size(), &found)))
            return std::nullopt;
        return value(found);
    }
    /// False when memory did not have it.
    bool erase(where at, bytes key)
    {
        return detail::found(perf_cache_delete(handle(), at.ns, at.user, key.data(), key.size()));
    }
    bool touch(where at, bytes key, duration ttl)
    {
        return detail::found(
            perf_cache_touch(handle(), at.ns, at.user, key.data(), key.size(), ttl.count()));
    }
    std::optional<duration> ttl(where at, bytes key) const
    {
        std::int64_t left = 0;
        if (!detail::found(perf_cache_ttl(handle(), at.ns, at.user, key.data(), key.size(), &left)))
            return std::nullopt;
        return duration(left);
    }
    std::int64_t incr(where at, bytes key, std::int64_t delta = 1, std::int64_t initial = 0,
                      duration ttl = default_ttl)
    {
        std::int64_t sum = 0;
        detail::check(perf_cache_incr(handle(), at.ns, at.user, key.data(), key.size(), delta,
                                      initial, ttl.count(), &sum));
        return sum;
    }

    // Trivially copyable types: stored as their bytes, read without an allocation.

    template <typename T>
    void set_as(where at, bytes key, const T &data, duration ttl = default_ttl)
    {
        static_assert(detail::is_plain<T>, "set_as: trivially copyable types, not pointers");
        set(at, key, bytes(std::addressof(data), sizeof data), ttl);
    }
    /// Nothing also when what is stored has another size.
    template <typename T> std::optional<T> get_as(where at, bytes key) const
    {
        static_assert(detail::is_plain<T>, "get_as<T>: T is trivially copyable and no pointer");
        T copy;
        std::size_t len = 0;
        int rc = perf_cache_get_copy(handle(), at.ns, at.user, key.data(), key.size(),
                                     std::addressof(copy), sizeof copy, &len);
        if (rc == PERF_ETOOSMALL || !detail::found(rc) || len != sizeof copy)
            return std::nullopt;
        return copy;
    }
    /// load() for a T that fn returns. A stored value of another size is loaded anew.
    template <typename T, typename F>
    std::optional<T> load_as(where at, bytes key, F fn, const load_options &options = {})
    {
        static_assert(detail::is_plain<T>, "load_as<T>: T is trivially copyable and no pointer");
        for (int attempt = 0;; attempt++) {
            std::optional<value> found = options.background ? load(at, key, fn, options)
                                                            : load(at, key, std::ref(fn), options);
            if (!found)
                return std::nullopt;
            if (found->size() == sizeof(T) || attempt)
                return found->template as<T>();
            erase(at, key);
        }
    }

    // Loading.

    /**
     * The value, made by fn on a miss: once for all threads that ask. fn takes nothing or
     * (libperf::loading &), and returns bytes, a trivially copyable value, or an optional of
     * one, whose emptiness says "no such thing": the result is then empty.
     */
    template <typename F>
    std::optional<value> load(where at, bytes key, F &&fn, const load_options &options = {})
    {
        using callable = std::decay_t<F>;
        using call = detail::call<callable>;
        std::exception_ptr thrown;
        call now{callable(std::forward<F>(fn)), &thrown};
        detail::c_set set(options.ttl, options.stale, options.tags);
        perf_loader loader = PERF_LOADER_INIT;
        perf_value *found = nullptr;
        loader.load = call::load;
        loader.ctx = &now;
        loader.wait_ms = options.wait.count();
        loader.set = &set.options;
        if (options.background) {
            if constexpr (std::is_copy_constructible_v<callable>) {
                now.kept = std::make_shared<std::exception_ptr>();
                now.thrown = now.kept.get();
                loader.ctx_clone = call::clone;
                loader.ctx_free = call::release;
            } else {
                throw error(PERF_EINVAL, "a loader for the background must be copyable");
            }
        }
        int rc = perf_cache_get_or_load(handle(), at.ns, at.user, key.data(), key.size(), &loader,
                                        &found);
        value result(rc == PERF_OK ? found : nullptr);
        if (rc == PERF_ELOAD && *now.thrown) // the load has ended: nobody writes it any more
            std::rethrow_exception(*now.thrown);
        if (!detail::found(rc))
            return std::nullopt;
        return result;
    }
    template <typename F> std::optional<value> load(where at, bytes key, F &&fn, duration ttl)
    {
        load_options options;
        options.ttl = ttl;
        return load(at, key, std::forward<F>(fn), options);
    }

    // Batches.

    /// One optional for each key, in order. Keys: a container of anything bytes is made from.
    template <typename Keys> std::vector<std::optional<value>> get_many(where at, const Keys &keys)
    {
        std::vector<perf_lookup> items = lookups(keys);
        std::vector<std::optional<value>> results(items.size());
        detail::check(
            perf_cache_get_many(handle(), at.ns, at.user, items.data(), items.size(), nullptr));
        detail::check(take(items, results));
        return results;
    }
    /// fn takes (std::vector<libperf::loading> &), the keys that missed, and calls set on each.
    template <typename Keys, typename F>
    std::vector<std::optional<value>> load_many(where at, const Keys &keys, F fn,
                                                const load_options &options = {})
    {
        std::vector<perf_lookup> items = lookups(keys);
        detail::batch_call<F> now{std::move(fn)};
        detail::c_set set(options.ttl, options.stale, options.tags);
        perf_loader loader = PERF_LOADER_INIT;
        loader.load_many = detail::batch_call<F>::load;
        loader.ctx = &now;
        loader.wait_ms = options.wait.count();
        loader.set = &set.options;
        std::vector<std::optional<value>> results(items.size());
        int rc = perf_cache_get_or_load_many(handle(), at.ns, at.user, items.data(), items.size(),
                                             &loader, nullptr);
        int failed = take(items, results);
        if (now.thrown)
            std::rethrow_exception(now.thrown);
        detail::check(rc);
        detail::check(failed);
        return results;
    }

    // Invalidation, policy, statistics, upkeep.

    void invalidate_namespace(const std::string &ns)
    {
        detail::check(perf_cache_invalidate_namespace(handle(), ns.c_str()));
    }
    void invalidate_user(const std::string &user)
    {
        detail::check(perf_cache_invalidate_user(handle(), user.c_str()));
    }
    void invalidate_tag(const std::string &tag)
    {
        detail::check(perf_cache_invalidate_tag(handle(), tag.c_str()));
    }
    /// In one namespace, or in all with nullptr.
    void invalidate_pattern(const char *ns, const std::string &pattern)
    {
        detail::check(perf_cache_invalidate_pattern(handle(), ns, pattern.c_str()));
    }
    void clear()
    {
        detail::check(perf_cache_clear(handle()));
    }
    void configure(const std::string &ns, const perf_namespace_options &options)
    {
        detail::check(perf_cache_configure_namespace(handle(), ns.c_str(), &options));
    }
    perf_cache_stats stats(const char *ns = nullptr) const
    {
        perf_cache_stats now = PERF_CACHE_STATS_INIT;
        detail::check(perf_cache_get_stats(handle(), ns, &now));
        return now;
    }
    /// Calls fn(const perf_cache_entry &) for the entries in memory.
    template <typename F> void for_each(const char *ns, F fn)
    {
        struct close {
            void operator()(perf_cache_iter *held) const noexcept
            {
                perf_cache_iter_close(held);
            }
        };
        perf_cache_iter *opened = nullptr;
        detail::check(perf_cache_iter_open(handle(), ns, &opened));
        std::unique_ptr<perf_cache_iter, close> iter(opened);
        perf_cache_entry entry = PERF_CACHE_ENTRY_INIT;
        while (detail::found(perf_cache_iter_next(opened, &entry)))
            fn(static_cast<const perf_cache_entry &>(entry));
    }
    void flush()
    {
        detail::check(perf_cache_flush(handle()));
    }
    std::int64_t maintain(std::int64_t budget)
    {
        return perf_cache_maintain(handle(), budget);
    }

  private:
    struct closer {
        void operator()(perf_cache *held) const noexcept
        {
            (void)perf_cache_close(held);
        }
    };

    void open(const perf_cache_options &options)
    {
        perf_cache *opened = nullptr;
        detail::check(perf_cache_open(&options, &opened));
        handle_.reset(opened);
    }
    template <typename Keys> static std::vector<perf_lookup> lookups(const Keys &keys)
    {
        std::vector<perf_lookup> items;
        for (const auto &key : keys) {
            bytes data(key);
            perf_lookup item{};
            item.key = data.data();
            item.key_len = data.size();
            items.push_back(item);
        }
        return items;
    }
    /// Every value into its owner; returns the last error among the items.
    static int take(const std::vector<perf_lookup> &items,
                    std::vector<std::optional<value>> &results) noexcept
    {
        int failed = PERF_OK;
        for (std::size_t i = 0; i < items.size(); i++) {
            if (items[i].status == PERF_OK)
                results[i].emplace(items[i].value);
            else if (items[i].status != PERF_MISS)
                failed = static_cast<int>(items[i].status);
        }
        return failed;
    }

    std::unique_ptr<perf_cache, closer> handle_;
};

// --------------------------------------------------------------------- pool

/// How the connections of a pool are made, checked and ended: lambdas, or anything callable.
/// open and close are required. They are called from the pool's threads and from callers, so
/// they must not use one thing without a lock. An exception that leaves one of them is a "no".
template <typename T> struct connector {
    /// Opens one to key ("" without one) within the time, or returns nullptr; libperf::error with
    /// another code, say PERF_ENOMEM, becomes the code of the failure.
    std::function<T *(const std::string &key, duration timeout)> open;
    std::function<void(T *)> close;
    std::function<bool(T *, duration timeout)> validate{}; ///< is it alive? default: believed
    std::function<bool(T *)> reset{};                      ///< on release; false: it is closed
    std::function<int(T *)> fd{};                          ///< its socket, or -1
};

/// A connection that goes back to its pool by itself. Move-only; the pool must outlive it.
template <typename T> class borrowed
{
  public:
    borrowed() noexcept = default;
    /// Takes over a connection that was borrowed by the C interface.
    borrowed(perf_pool *pool, T *conn) noexcept : pool_(pool), conn_(conn)
    {
    }
    borrowed(borrowed &&other) noexcept
        : pool_(other.pool_), conn_(std::exchange(other.conn_, nullptr))
    {
    }
    borrowed &operator=(borrowed &&other) noexcept
    {
        if (this != &other) {
            release();
            pool_ = other.pool_;
            conn_ = std::exchange(other.conn_, nullptr);
        }
        return *this;
    }
    ~borrowed()
    {
        release();
    }
    T *get() const noexcept
    {
        return conn_;
    }
    T *operator->() const noexcept
    {
        return conn_;
    }
    T &operator*() const noexcept
    {
        return *conn_;
    }
    explicit operator bool() const noexcept
    {
        return conn_ != nullptr;
    }
    /// Gives it back before its scope ends.
    void release() noexcept
    {
        if (conn_)
            (void)perf_pool_release(pool_, std::exchange(conn_, nullptr));
    }
    /// It is broken: the pool closes it.
    void discard() noexcept
    {
        if (conn_)
            (void)perf_pool_discard(pool_, std::exchange(conn_, nullptr));
    }
    /// Takes it out of the pool for good. It is the caller's, who closes it.
    T *detach()
    {
        if (conn_)
            detail::check(perf_pool_detach(pool_, conn_));
        return std::exchange(conn_, nullptr);
    }

  private:
    perf_pool *pool_ = nullptr;
    T *conn_ = nullptr;
};

/**
 * A pool that closes itself.
 *
 *     libperf::connector<db> how{[](const std::string &, libperf::duration) { return new db; },
 *                                [](db *c) { delete c; }};
 *     libperf::pool<db> pool(std::move(how));
 *     pool.acquire(50ms)->query("...");
 *
 * Move-only. When it is destroyed, all connections must have come back: those that have not,
 * and the pool with them, are left as they are, which is a leak and no crash.
 */
template <typename T> class pool
{
  public:
    /// options: all but vtable and ctx, which are made of how.
    explicit pool(connector<T> how, perf_pool_options options = PERF_POOL_OPTIONS_INIT)
        : how_(std::make_unique<connector<T>>(std::move(how)))
    {
        perf_connection_vtable vtable{};
        vtable.struct_size = sizeof vtable;
        vtable.open = how_->open ? open : nullptr;
        vtable.close = how_->close ? close : nullptr;
        vtable.validate = how_->validate ? validate : nullptr;
        vtable.reset = how_->reset ? reset : nullptr;
        vtable.fd = how_->fd ? fd : nullptr;
        options.vtable = &vtable;
        options.ctx = how_.get();
        detail::check(perf_pool_open(&options, &handle_));
    }
    pool(pool &&other) noexcept
        : how_(std::move(other.how_)), handle_(std::exchange(other.handle_, nullptr))
    {
    }
    pool &operator=(pool &&other) noexcept
    {
        std::swap(how_, other.how_);
        std::swap(handle_, other.handle_);
        return *this;
    }
    ~pool()
    {
        if (perf_pool_close(handle_) != PERF_OK)
            (void)how_.release(); // somebody still has a connection, and will give it back
    }
    perf_pool *handle() const noexcept
    {
        return handle_;
    }
    /// Closes now; throws PERF_EBUSY when connections are out, and it can be called again.
    void close_now()
    {
        detail::check(perf_pool_close(handle_));
        handle_ = nullptr;
    }

    /// Throws when none came in time. who must live as long as the pool: a literal.
    borrowed<T> acquire(duration timeout = forever, const char *who = nullptr)
    {
        void *conn = nullptr;
        detail::check(perf_pool_acquire_as(handle_, who, timeout.count(), &conn));
        return borrowed<T>(handle_, static_cast<T *>(conn));
    }
    borrowed<T> acquire_key(const std::string &key, duration timeout = forever,
                            const char *who = nullptr)
    {
        void *conn = nullptr;
        detail::check(perf_pool_acquire_key(handle_, key.c_str(), who, timeout.count(), &conn));
        return borrowed<T>(handle_, static_cast<T *>(conn));
    }
    /// An empty one when all are busy; other failures throw.
    borrowed<T> try_acquire(duration timeout = duration(0), const char *who = nullptr)
    {
        void *conn = nullptr;
        int rc = perf_pool_acquire_as(handle_, who, timeout.count(), &conn);
        if (rc == PERF_ETIMEDOUT || rc == PERF_EBUSY)
            return borrowed<T>();
        detail::check(rc);
        return borrowed<T>(handle_, static_cast<T *>(conn));
    }

    void evict_all()
    {
        detail::check(perf_pool_evict_all(handle_));
    }
    void suspend()
    {
        detail::check(perf_pool_suspend(handle_));
    }
    void resume()
    {
        detail::check(perf_pool_resume(handle_));
    }
    void resize(std::uint64_t min_idle, std::uint64_t max_size)
    {
        detail::check(perf_pool_resize(handle_, min_idle, max_size));
    }
    void maintain()
    {
        detail::check(perf_pool_maintain(handle_));
    }
    perf_pool_stats stats() const
    {
        perf_pool_stats now = PERF_POOL_STATS_INIT;
        detail::check(perf_pool_get_stats(handle_, &now));
        return now;
    }

  private:
    /// No exception crosses the library.
    template <typename F> static int guard(F fn) noexcept
    {
        try {
            return fn();
        } catch (const error &e) {
            return e.code() < 0 ? e.code() : PERF_EIO;
        } catch (const std::bad_alloc &) {
            return PERF_ENOMEM;
        } catch (...) {
            return PERF_EIO;
        }
    }
    static connector<T> *how(void *ctx) noexcept
    {
        return static_cast<connector<T> *>(ctx);
    }
    static int open(void *ctx, const char *key, std::int64_t timeout_ms, void **conn) noexcept
    {
        return guard([&]() -> int {
            *conn = how(ctx)->open(key, duration(timeout_ms));
            return *conn ? PERF_OK : PERF_EUNAVAILABLE;
        });
    }
    static void close(void *ctx, void *conn) noexcept
    {
        (void)guard([&]() -> int { return how(ctx)->close(static_cast<T *>(conn)), PERF_OK; });
    }
    static int validate(void *ctx, void *conn, std::int64_t timeout_ms) noexcept
    {
        return guard([&]() -> int {
            return how(ctx)->validate(static_cast<T *>(conn), duration(timeout_ms)) ? PERF_OK
                                                                                    : PERF_EIO;
        });
    }
    static int reset(void *ctx, void *conn) noexcept
    {
        return guard(
            [&]() -> int { return how(ctx)->reset(static_cast<T *>(conn)) ? PERF_OK : PERF_EIO; });
    }
    static int fd(void *ctx, void *conn) noexcept
    {
        int found = -1;
        (void)guard([&]() -> int { return found = how(ctx)->fd(static_cast<T *>(conn)), PERF_OK; });
        return found;
    }

    std::unique_ptr<connector<T>> how_; // at one address, for the library has it
    perf_pool *handle_ = nullptr;
};

// --------------------------------------------------------------- executor

/// One run of a task, as a callable sees it that takes (libperf::run &).
class run
{
  public:
    explicit run(perf_run *of) noexcept : handle_(of)
    {
    }
    /// True when it should stop: it was cancelled, or its time is over.
    bool cancelled() const noexcept
    {
        return perf_run_cancelled(handle_) != PERF_OK;
    }
    /// Throws PERF_ECANCELED or PERF_ETIMEDOUT when it should stop; the task then ends so.
    void check() const
    {
        if (int rc = perf_run_cancelled(handle_))
            throw error(rc, "");
    }
    /// Until its time is over, or libperf::forever.
    duration remaining() const noexcept
    {
        return duration(perf_run_remaining_ms(handle_));
    }
    /// How far it is, from 0 to 1; without a text that stays.
    void progress(double fraction, const char *text = nullptr)
    {
        detail::check(perf_run_progress(handle_, fraction, text));
    }
    void count(std::uint64_t done, std::uint64_t total = 0)
    {
        detail::check(perf_run_count(handle_, done, total));
    }
    /// Gives the result. A callable that returns its result need not call this.
    void result(bytes data)
    {
        detail::check(perf_run_result(handle_, data.data(), data.size()));
    }
    /// In a task of task::then: the result of the one before.
    std::string_view input() const noexcept
    {
        perf_bytes input = {nullptr, 0};
        return perf_run_input(handle_, &input) == PERF_OK ? view(input) : std::string_view();
    }

    // Of durable tasks. Valid during the run.

    std::string_view payload() const noexcept
    {
        perf_bytes payload = {nullptr, 0};
        return perf_run_payload(handle_, &payload) == PERF_OK ? view(payload) : std::string_view();
    }
    const char *id() const noexcept
    {
        return perf_run_id(handle_);
    }
    const char *kind() const noexcept
    {
        return perf_run_kind(handle_);
    }
    const char *user() const noexcept
    {
        return perf_run_user(handle_);
    }
    std::int64_t attempt() const noexcept
    {
        return perf_run_attempt(handle_);
    }
    std::int64_t version() const noexcept
    {
        return perf_run_version(handle_);
    }
    /// Ends this run by an exception; the task runs again after delay, this attempt not counted.
    [[noreturn]] void snooze(duration delay)
    {
        throw error(perf_run_snooze(handle_, delay.count()));
    }
    perf_run *handle() const noexcept
    {
        return handle_;
    }

  private:
    static std::string_view view(perf_bytes data) noexcept
    {
        return {static_cast<const char *>(data.data), data.len};
    }
    perf_run *handle_;
};

namespace detail
{

/// Calls fn(view) or fn(), as it likes.
template <typename F> decltype(auto) call_with(F &fn, libperf::run &view)
{
    if constexpr (std::is_invocable_v<F &, libperf::run &>) {
        return fn(view);
    } else {
        static_assert(std::is_invocable_v<F &>, "a task takes (libperf::run &) or nothing");
        return fn();
    }
}

/// The callable of a task. No exception crosses the library: it becomes a code and a sentence.
template <typename F> struct job {
    F fn;

    int work(libperf::run &view)
    {
        using R = decltype(call_with(fn, view));
        if constexpr (std::is_void_v<R>) {
            call_with(fn, view);
        } else {
            using T = std::remove_cv_t<std::remove_reference_t<R>>;
            static_assert(std::is_convertible_v<const T &, bytes> || is_plain<T>,
                          "a task returns bytes, a trivially copyable value, or nothing");
            const T &result = call_with(fn, view);
            if constexpr (std::is_convertible_v<const T &, bytes>)
                view.result(bytes(result));
            else
                view.result(bytes(std::addressof(result), sizeof result));
        }
        return PERF_OK;
    }

    static int run(perf_run *of, void *arg) noexcept
    {
        libperf::run view(of);
        try {
            return static_cast<job *>(arg)->work(view);
        } catch (const error &e) {
            return perf_run_fail(of, e.code() < 0 ? e.code() : PERF_ELOAD, e.what());
        } catch (const std::bad_alloc &) {
            return perf_run_fail(of, PERF_ENOMEM, "out of memory");
        } catch (const std::exception &e) {
            return perf_run_fail(of, PERF_ELOAD, e.what());
        } catch (...) {
            return perf_run_fail(of, PERF_ELOAD, "an exception left the task");
        }
    }
    static void release(void *arg) noexcept
    {
        delete static_cast<job *>(arg);
    }
};

} // namespace detail

/**
 * A task that was submitted: wait for it, look at it, cancel it. Move-only. Letting go of it
 * neither waits nor cancels. It may outlive its executor.
 */
class task
{
  public:
    task() noexcept = default;
    /// Takes over a handle of the C interface.
    explicit task(perf_task *taken) noexcept : handle_(taken)
    {
    }
    /// PERF_TASK_...
    int state() const noexcept
    {
        return perf_task_state(handle());
    }
    bool done() const noexcept
    {
        return state() >= PERF_TASK_SUCCEEDED;
    }
    /// True once it has ended, however; false when timeout was over before.
    bool wait(duration timeout = forever) const
    {
        int rc = perf_task_wait(handle(), timeout.count(), nullptr);
        if (rc != PERF_OK && !done() && rc != PERF_ETIMEDOUT)
            throw libperf::error(rc);
        return done();
    }
    /// Its result, once it has succeeded. Throws what it failed with, PERF_ECANCELED, or
    /// PERF_ETIMEDOUT. Can be called again.
    std::string get(duration timeout = forever) const
    {
        perf_bytes data = result(timeout);
        return data.len ? std::string(static_cast<const char *>(data.data), data.len)
                        : std::string();
    }
    /// The same of a task that returned a T.
    template <typename T> T get_as(duration timeout = forever) const
    {
        static_assert(detail::is_plain<T>, "get_as<T>: T must be trivially copyable, no pointer");
        perf_bytes data = result(timeout);
        T copy;
        if (data.len != sizeof copy)
            throw libperf::error(PERF_ECORRUPT,
                                 "the result has another size than the type asked for");
        std::memcpy(static_cast<void *>(std::addressof(copy)), data.data, sizeof copy);
        return copy;
    }
    /// Why it failed; "" if it did not.
    const char *error() const noexcept
    {
        return perf_task_error(handle());
    }
    /// False when it had ended already.
    bool cancel()
    {
        return detail::found(perf_task_cancel(handle()));
    }
    perf_progress progress() const
    {
        perf_progress now = PERF_PROGRESS_INIT;
        detail::check(perf_task_progress(handle(), &now));
        return now;
    }
    /// Readable once it has ended; see perf_task_fd.
    int fd() const
    {
        int number = -1;
        detail::check(perf_task_fd(handle(), &number));
        return number;
    }
    /// Runs fn when this one has succeeded; libperf::run::input is its result.
    template <typename F> task then(F &&fn, perf_task_options options = PERF_TASK_OPTIONS_INIT)
    {
        using job = detail::job<std::decay_t<F>>;
        perf_task *next = nullptr;
        options.struct_size = sizeof options;
        options.free_arg = job::release;
        detail::check(
            perf_task_then(handle(), job::run, new job{std::forward<F>(fn)}, &options, &next));
        return task(next);
    }
    perf_task *handle() const noexcept
    {
        return handle_.get();
    }

  private:
    struct release {
        void operator()(perf_task *held) const noexcept
        {
            perf_task_release(held);
        }
    };
    perf_bytes result(duration timeout) const
    {
        perf_bytes data{};
        int rc = perf_task_wait(handle(), timeout.count(), &data);
        if (rc != PERF_OK)
            throw done() ? libperf::error(rc, error()) : libperf::error(rc);
        return data;
    }
    std::unique_ptr<perf_task, release> handle_;
};

#if defined(__cpp_impl_coroutine)
namespace detail
{

/// What executor::run gives to co_await.
template <typename F> class awaited
{
    using result = decltype(call_with(std::declval<F &>(), std::declval<libperf::run &>()));
    using kept = std::conditional_t<std::is_void_v<result>, char, std::decay_t<result>>;

  public:
    awaited(perf_executor *executor, F fn) : executor_(executor), fn_(std::move(fn))
    {
    }
    bool await_ready() const noexcept
    {
        return false;
    }
    void await_suspend(std::coroutine_handle<> waiting)
    {
        waiting_ = waiting;
        perf_task_options options = PERF_TASK_OPTIONS_INIT;
        std::unique_ptr<way> there(new way{this});
        options.done = ended;
        options.done_ctx = there.get();
        check(perf_task_submit(executor_, work, there.get(), &options, nullptr));
        (void)there.release(); // and *this may be gone
    }
    std::decay_t<result> await_resume()
    {
        if (thrown_)
            std::rethrow_exception(thrown_);
        if constexpr (!std::is_void_v<result>)
            return std::move(*value_);
    }

  private:
    /// Of one submission; the end of the task frees it, whether it ran or not.
    struct way {
        awaited *from;
    };
    static int work(perf_run *of, void *arg) noexcept
    {
        awaited *self = std::exchange(static_cast<way *>(arg)->from, nullptr);
        libperf::run view(of);
        try {
            if constexpr (std::is_void_v<result>)
                call_with(self->fn_, view);
            else
                self->value_.emplace(call_with(self->fn_, view));
        } catch (...) {
            self->thrown_ = std::current_exception();
        }
        self->waiting_.resume();
        return PERF_OK;
    }
    static void ended(void *ctx, perf_task *task) noexcept
    {
        std::unique_ptr<way> there(static_cast<way *>(ctx));
        if (awaited *self = there->from) { // it never ran
            self->thrown_ =
                std::make_exception_ptr(error(perf_task_wait(task, 0, nullptr), "it never ran"));
            self->waiting_.resume();
        }
    }

    perf_executor *executor_;
    F fn_;
    std::coroutine_handle<> waiting_{};
    std::optional<kept> value_{};
    std::exception_ptr thrown_{};
};

} // namespace detail
#endif

/**
 * Runs callables on a few threads.
 *
 *     libperf::executor executor;
 *     libperf::task task = executor.submit([](libperf::run &run) { ...; return text; });
 *     task.get(5s);
 *
 * A callable takes (libperf::run &) or nothing, and returns bytes, a trivially copyable value or
 * nothing: the task's result. An exception that leaves it is the task's failure: get() throws
 * libperf::error, with the code of a libperf::error or else PERF_ELOAD, and the same what().
 * Callables are moved into the task, and run after submit() has returned: capture by value, or
 * what outlives the task. Move-only. The destructor waits for what was submitted.
 */
class executor
{
  public:
    explicit executor(const perf_executor_options &options = PERF_EXECUTOR_OPTIONS_INIT)
    {
        perf_executor *opened = nullptr;
        detail::check(perf_executor_open(&options, &opened));
        handle_.reset(opened);
    }
    /// Takes over a handle of the C interface.
    explicit executor(perf_executor *taken) noexcept : handle_(taken)
    {
    }
    /// Submits fn. options: all but free_arg. Throws PERF_EBUSY when it is full, PERF_ECLOSED.
    template <typename F> task submit(F &&fn, perf_task_options options = PERF_TASK_OPTIONS_INIT)
    {
        using job = detail::job<std::decay_t<F>>;
        perf_task *made = nullptr;
        options.struct_size = sizeof options;
        options.free_arg = job::release;
        detail::check(
            perf_task_submit(handle(), job::run, new job{std::forward<F>(fn)}, &options, &made));
        return task(made);
    }
    /// Runs fn again and again until the task is cancelled.
    template <typename F>
    task every(duration interval, F &&fn, perf_task_options options = PERF_TASK_OPTIONS_INIT)
    {
        using job = detail::job<std::decay_t<F>>;
        perf_task *made = nullptr;
        options.struct_size = sizeof options;
        options.free_arg = job::release;
        detail::check(perf_task_every(handle(), interval.count(), job::run,
                                      new job{std::forward<F>(fn)}, &options, &made));
        return task(made);
    }
#if defined(__cpp_impl_coroutine)
    /**
     * auto page = co_await executor.run([&] { return fetch(url); });
     *
     * Runs fn on a thread of the executor, and the coroutine goes on there, as a part of that
     * task. fn may return anything that moves, and what it throws comes out of co_await; so
     * does libperf::error with PERF_ECANCELED when the executor is closed before fn has
     * begun, and then the coroutine goes on on the thread that closes. It must not close the
     * executor.
     *
     * gcc 12, for one, destroys twice what a lambda within a co_await expression captures by
     * value. Capture by reference, as the coroutine's variables last, or begin before:
     *     auto step = executor.run([text] { ... });
     *     co_await step;
     */
    template <typename F> [[nodiscard]] detail::awaited<std::decay_t<F>> run(F &&fn)
    {
        return {handle(), std::forward<F>(fn)};
    }
#endif
    /// False when something was still queued or running after timeout.
    bool drain(duration timeout = forever)
    {
        int rc = perf_executor_drain(handle(), timeout.count());
        if (rc != PERF_ETIMEDOUT)
            detail::check(rc);
        return rc == PERF_OK;
    }
    void resize(std::uint64_t min_threads, std::uint64_t max_threads)
    {
        detail::check(perf_executor_resize(handle(), min_threads, max_threads));
    }
    perf_executor_stats stats() const
    {
        perf_executor_stats now = PERF_EXECUTOR_STATS_INIT;
        detail::check(perf_executor_get_stats(handle(), &now));
        return now;
    }
    /// Closes now: what has not begun after drain is cancelled, what runs is asked to stop.
    /// Throws PERF_EBUSY when something does not stop, and it can be called again.
    void close(duration drain = forever)
    {
        detail::check(perf_executor_close(handle(), drain.count()));
        (void)handle_.release();
    }
    perf_executor *handle() const noexcept
    {
        return handle_.get();
    }

  private:
    struct closer {
        void operator()(perf_executor *held) const noexcept
        {
            (void)perf_executor_close(held, -1);
        }
    };
    std::unique_ptr<perf_executor, closer> handle_;
};

// ----------------------------------------------------------- durable tasks

/// What a queue knows of a task. Move-only; the fields are those of perf_task_record.
class record
{
  public:
    explicit record(perf_task_record *taken) noexcept : handle_(taken)
    {
    }
    const perf_task_record *operator->() const noexcept
    {
        return handle_.get();
    }
    bool succeeded() const noexcept
    {
        return handle_->state == PERF_TASK_SUCCEEDED;
    }
    bool done() const noexcept
    {
        return handle_->state >= PERF_TASK_SUCCEEDED;
    }
    std::string_view payload() const noexcept
    {
        return {static_cast<const char *>(handle_->payload.data), handle_->payload.len};
    }
    std::string_view result() const noexcept
    {
        return {static_cast<const char *>(handle_->result.data), handle_->result.len};
    }

  private:
    struct release {
        void operator()(perf_task_record *held) const noexcept
        {
            perf_task_record_free(held);
        }
    };
    std::unique_ptr<perf_task_record, release> handle_;
};

/**
 * A queue of tasks that survive the process.
 *
 *     libperf::tasks tasks("/var/lib/app/tasks.db");
 *     tasks.handle("resize", [](libperf::run &run) { return resize(run.payload()); });
 *     tasks.start();
 *     std::string id = tasks.submit("resize", picture);
 *     tasks.wait(id, 5s)->result();
 *
 * Handlers take and return what an executor's callables do. At least once: a handler may run
 * again although it has done its work. Move-only. The destructor waits for what runs.
 */
class tasks
{
  public:
    /// A SQLite file, with the default options.
    explicit tasks(const std::string &file)
    {
        perf_tasks_options options = PERF_TASKS_OPTIONS_INIT;
        options.location = file.c_str();
        open(options);
    }
    explicit tasks(const perf_tasks_options &options = PERF_TASKS_OPTIONS_INIT)
    {
        open(options);
    }
    /// Tasks of kind are run by fn. options: all but free_ctx. Before start().
    template <typename F>
    void handle(const std::string &kind, F &&fn,
                perf_handler_options options = PERF_HANDLER_OPTIONS_INIT)
    {
        using job = detail::job<std::decay_t<F>>;
        auto made = std::make_unique<job>(job{std::forward<F>(fn)});
        options.struct_size = sizeof options;
        options.free_ctx = job::release;
        detail::check(perf_tasks_handle(handle(), kind.c_str(), job::run, made.get(), &options));
        (void)made.release();
    }
    void start()
    {
        detail::check(perf_tasks_start(handle()));
    }
    /// Claims no more. False when something still ran after timeout.
    bool stop(duration timeout = forever)
    {
        int rc = perf_tasks_stop(handle(), timeout.count());
        if (rc != PERF_ETIMEDOUT)
            detail::check(rc);
        return rc == PERF_OK;
    }
    /// Submits, and returns the id. When options give an id or a unique_key that is there already,
    /// the id of the first one is returned, and *added is false.
    std::string submit(const std::string &kind, bytes payload,
                       const perf_submit_options &options = PERF_SUBMIT_OPTIONS_INIT,
                       bool *added = nullptr)
    {
        perf_task_id id{};
        int rc = perf_tasks_submit(handle(), kind.c_str(), payload.data(), payload.size(), &options,
                                   &id);
        if (rc != PERF_EEXISTS)
            detail::check(rc);
        if (added)
            *added = rc == PERF_OK;
        return id.text;
    }
    /// Empty when there is none, or no longer.
    std::optional<record> get(const std::string &id) const
    {
        perf_task_record *found = nullptr;
        if (!detail::found(perf_tasks_get(handle(), id.c_str(), &found)))
            return std::nullopt;
        return record(found);
    }
    /// Waits for its end, whichever that is. Empty when there is none; throws PERF_ETIMEDOUT.
    std::optional<record> wait(const std::string &id, duration timeout = forever) const
    {
        perf_task_record *found = nullptr;
        if (!detail::found(perf_tasks_wait(handle(), id.c_str(), timeout.count(), &found)))
            return std::nullopt;
        return record(found);
    }
    /// False when there is none, or it has ended.
    bool cancel(const std::string &id)
    {
        return detail::found(perf_tasks_cancel(handle(), id.c_str()));
    }
    /// Puts one that ended without success into its queue again; false when it is none of these.
    bool redrive(const std::string &id)
    {
        return detail::found(perf_tasks_redrive(handle(), id.c_str()));
    }
    /// Submits a task of kind whenever cron says so; see perf_tasks_schedule.
    void schedule(const std::string &name, const std::string &cron, const std::string &kind,
                  bytes payload, const char *zone = nullptr,
                  const perf_submit_options &options = PERF_SUBMIT_OPTIONS_INIT)
    {
        detail::check(perf_tasks_schedule(handle(), name.c_str(), cron.c_str(), zone, kind.c_str(),
                                          payload.data(), payload.size(), &options));
    }
    perf_tasks_counts count(const char *queue = nullptr) const
    {
        perf_tasks_counts now = PERF_TASKS_COUNTS_INIT;
        detail::check(perf_tasks_count(handle(), queue, &now));
        return now;
    }
    perf_tasks_stats stats() const
    {
        perf_tasks_stats now = PERF_TASKS_STATS_INIT;
        detail::check(perf_tasks_get_stats(handle(), &now));
        return now;
    }
    /// Closes now: what still runs after drain is asked to stop and given back to the queue.
    /// Throws PERF_EBUSY when a handler does not stop, and it can be called again.
    void close(duration drain = forever)
    {
        detail::check(perf_tasks_close(handle(), drain.count()));
        (void)handle_.release();
    }
    perf_tasks *handle() const noexcept
    {
        return handle_.get();
    }

  private:
    struct closer {
        void operator()(perf_tasks *held) const noexcept
        {
            (void)perf_tasks_close(held, -1);
        }
    };
    void open(const perf_tasks_options &options)
    {
        perf_tasks *opened = nullptr;
        detail::check(perf_tasks_open(&options, &opened));
        handle_.reset(opened);
    }
    std::unique_ptr<perf_tasks, closer> handle_;
};

} // namespace libperf

#endif
