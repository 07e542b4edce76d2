//! The options of every database, and what all databases of a process share.

use rocksdb::{
    BlockBasedOptions, Cache, DBCompressionType, DataBlockIndexType, FlushOptions, Options, WriteBufferManager,
    WriteOptions,
};

/// Block cache and memtable gauge of the process.
pub(in crate::state) struct Shared {
    cache: Cache,
    buffers: WriteBufferManager,
}

impl Shared {
    /// Memtables are charged to the cache. The limit of the write buffer manager is a last resort: it flushes the database
    /// that writes and no other, so the flush policy of [`StateMemory`](crate::state::StateMemory) keeps the budget.
    pub(in crate::state) fn new(block_cache_bytes: usize, memtable_bytes: usize) -> Shared {
        let cache = Cache::new_hyper_clock_cache(block_cache_bytes, 0);
        let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(2 * memtable_bytes, false, cache.clone());
        Shared { cache, buffers }
    }
}

pub(super) fn database(shared: &Shared) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_background_jobs(2);
    // Per database: a process with many tasks has to raise its own limit.
    options.set_max_open_files(512);
    options.set_max_file_opening_threads(1);
    options.set_skip_stats_update_on_db_open(true);
    // A database has one writer, the thread that owns its task.
    options.set_allow_concurrent_memtable_write(false);
    options.set_bytes_per_sync(1 << 20);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_keep_log_file_num(2);
    // `Info` prints every option: a quarter of the time of an open.
    options.set_log_level(rocksdb::LogLevel::Warn);
    options.set_write_buffer_manager(&shared.buffers);
    options
}

pub(super) fn family(shared: &Shared) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&shared.cache);
    table.set_block_size(8 << 10);
    table.set_format_version(6);
    table.set_bloom_filter(10.0, false);
    table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(16 << 20);
    options.set_max_write_buffer_number(3);
    // The manager counts whole blocks, and the default of 1 MB would let 64 small stores fill its limit.
    options.set_arena_block_size(16 << 10);
    // No bloom filter for memtables: a tenth of the 16 MB is taken by every store, even by an empty one.
    options.set_level_zero_file_num_compaction_trigger(4);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_compression_type(DBCompressionType::Lz4);
    options
}

/// The changelog is the log of a store; one without a changelog has RocksDB's own.
pub(super) fn write(is_logged: bool) -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(is_logged);
    options
}

pub(super) fn flush(wait: bool) -> FlushOptions {
    let mut options = FlushOptions::default();
    options.set_wait(wait);
    options
}
