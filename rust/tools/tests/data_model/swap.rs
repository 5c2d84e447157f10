// SPDX-License-Identifier: GPL-2.0

//! Swapfiles of a history.

use super::{data_block, Cell, World};
use oxfs::engine::device::{BlockDevice, Write};
use oxfs::engine::swap_plan::PlannedRun;
use oxfs::engine::types::{BlockNr, FileBlock};
use oxfs::engine::Error;

impl World {
    pub fn swapon(&mut self, file: usize, pages: u64) -> Result<(), Error> {
        let id = self.files[file];
        let has = |at: &u64| self.models[file].cells.contains_key(at);
        let hole = (0..pages).find(|at| !has(at));
        assert_eq!(self.volume.first_hole(id, pages)?, hole.map(FileBlock));
        let Some(&Cell::Data(header)) = self.models[file].cells.get(&0) else {
            return Ok(());
        };
        if hole.is_some() {
            return Ok(());
        }
        self.volume.set_swapping(id, true)?;
        assert_eq!(self.volume.set_swapping(id, true), Err(Error::Busy));
        // A plan that is dropped has changed nothing.
        let planned = self.volume.plan_swap(id, pages).map(drop);
        let activated = planned.and_then(|()| {
            let plan = self.volume.plan_swap(id, pages)?;
            let runs = plan.runs().to_vec();
            plan.apply(&data_block(header)).map(|_| runs)
        });
        match activated {
            Ok(runs) => self.check_plan(file, &runs)?,
            Err(error) => {
                assert_eq!(error, Error::NoSpace);
                return self.volume.set_swapping(id, false).and(Err(error));
            }
        }
        for at in 1..pages {
            self.models[file].cells.insert(at, Cell::Zero);
        }
        self.models[file].swap = Some(pages);
        self.check_runs(file, pages)?;
        // A second activation changes nothing.
        let before = self.disk.writes();
        let again = self.volume.plan_swap(id, pages)?;
        let again = again.apply(&data_block(header))?;
        assert_eq!(
            (again.new_blocks, again.kept_blocks, again.moved_blocks),
            (0, 0, 0)
        );
        assert_eq!(self.disk.writes(), before);
        Ok(())
    }

    /// What the kernel was told is what the file has got.
    fn check_plan(&mut self, file: usize, runs: &[PlannedRun]) -> Result<(), Error> {
        let mut page = 0;
        for planned in runs {
            assert_eq!(planned.page, page);
            let end = page + planned.run.len;
            while page < end {
                let id = self.files[file];
                let found = self.volume.swap_run(id, page, end)?.expect("run").run;
                assert_eq!(found.start.0, planned.run.start.0 + (page - planned.page));
                page += found.len;
            }
        }
        Ok(())
    }

    /// The runs cover the pages without a gap, and swap I/O to them reaches nobody else.
    fn check_runs(&mut self, file: usize, pages: u64) -> Result<(), Error> {
        let mut page = 0;
        while page < pages {
            let found = self
                .volume
                .swap_run(self.files[file], page, pages)?
                .expect("run");
            assert_eq!(found.page, page);
            assert!(found.run.len > 0);
            for i in (0..found.run.len).filter(|i| page + i > 0) {
                let block = BlockNr(found.run.start.0 + i);
                let data = data_block(u64::MAX - page - i);
                self.disk.write(&[Write { block, data: &data }])?;
            }
            page += found.run.len;
        }
        assert_eq!(page, pages);
        Ok(())
    }

    pub fn swapoff(&mut self, file: usize) -> Result<(), Error> {
        self.models[file].swap = None;
        self.volume.set_swapping(self.files[file], false)
    }
}
