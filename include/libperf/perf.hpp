// SPDX-License-Identifier: MIT
//
// perf.hpp - libperf for C++17: the same calls, with RAII, exceptions, optional
// and lambdas. Header only; it adds nothing that cache.h and pool.h do not have.
//
//     libperf::cache cache({"/var/cache/app.db"});            // or libperf::cache cache;
//     libperf::value page = cache.load("pages", url, [&] { return fetch(url); }, 5min).value();
//     std::cout << page.view();
//
//     libperf::pool<db> pool({open_db, close_db});
//     pool.acquire(50ms)->query("...");                       // and it goes back
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

} // namespace libperf

#endif
